"""Line charts, drawn as SVG by the template `elements.html`: they follow a page's colours, light or dark.

A chart knows its axes and lines, and where they go. Lengths are in SVG units, near CSS pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

MAX_POINTS = 240  # a longer series is averaged
MAX_MARKED = 60  # a longer series is a line without points
FEW = 5

Kind = Literal["small", "wide", "square", "panel"]
Colour = Literal["blue", "orange", "green", "purple", "gray", "ink", "amber", "sky"]  # of the style sheet
Stroke = Literal["solid", "dashed", "dotted", "chained"]
Place = tuple[float, float]

SIZES: dict[Kind, tuple[tuple[int, int], tuple[int, int, int, int]]] = {  # width, height; left, right, top, bottom
    "small": ((480, 270), (72, 16, 14, 44)),
    "wide": ((960, 330), (74, 22, 30, 46)),
    "square": ((272, 250), (54, 18, 10, 40)),
    "panel": ((540, 380), (64, 18, 14, 46)),
}
TICKS: dict[Kind, tuple[int, int]] = {"small": (6, 6), "wide": (8, 5), "square": (2, 2), "panel": (6, 6)}
STROKES: dict[Colour, Stroke] = {"green": "dashed", "purple": "dotted", "gray": "chained"}  # of curves
MARKERS = {  # paths around a point; a circle is one without
    "circle": "",
    "square": "m-4 -4h8v8h-8z",
    "triangle": "m0 -5.5l5 9h-10z",
    "diamond": "m0 -5.5l5 5.5l-5 5.5l-5 -5.5z",
}


class Axis:
    """Values from `low` to `high` at places from `start` to `end`, evenly or logarithmically."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool = False) -> None:
        self.low, self.high, self.start, self.end, self.log = low, high, start, end, log

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        low, high, value = (math.log(each) if self.log else each for each in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, about: int) -> list[tuple[float, str]]:
        """Return the places of `about` so many round values, and their texts."""
        if self.log and (decades := math.log10(self.high / self.low)) > 0.5:
            factors = (1, 2, 3, 5, 7) if decades < 1 else (1, 3) if decades < 4 else (1,)
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            values = [factor * 10.0**power for power in powers for factor in factors]
            return [(self(value), f"{value:,.6g}") for value in values if self.low <= value <= self.high]
        step = _round_step((self.high - self.low) / about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(self(number * step), _number(number * step, step)) for number in range(first, last + 1)]


def _round_step(size: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is at least `size`."""
    power: float = 10.0 ** math.floor(math.log10(size))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= size * (1 - 1e-9))


def _number(value: float, step: float) -> str:
    if value == 0:
        return "0"
    decimals = -math.floor(math.log10(step) + 1e-9)
    if decimals > 4 or abs(value) >= 1e7:
        digits = max(0, math.floor(math.log10(abs(value)) + 1e-9) - math.floor(math.log10(step) + 1e-9))
        mantissa, exponent = f"{value:.{digits}e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    return f"{value:,.{max(0, decimals)}f}".replace("-", "−")


@dataclass(frozen=True)
class Series:
    """Lines of one colour, as (x, y).

    Attributes:
        label: For the legend; "" for none.
        colour: Of the lines.
        lines: Each is a line of its own.
        marks: What is drawn as points.
        band: The outline of a shaded area.
        stroke: Of the lines.
        marker: The shape of points, one of `MARKERS`.
        marked: Whether the legend shows a point.
    """

    label: str
    colour: Colour
    lines: Sequence[Sequence[Place]]
    marks: Sequence[Place] = ()
    band: Sequence[Place] = ()
    stroke: Stroke = "solid"
    marker: str = "circle"
    marked: bool = False

    @property
    def shape(self) -> str:
        """The path of a point around its place; "" for a circle."""
        return MARKERS[self.marker]


@dataclass(frozen=True)
class Chart:
    """Axes and lines.

    Attributes:
        title: What it shows.
        remark: A few words beside the title, mostly the unit.
        series: The lines.
        x: Ends of the horizontal axis.
        y: Ends of the vertical axis.
        x_name: What stands below the horizontal axis.
        y_name: What stands beside or above the vertical axis.
        x_ticks: Values to mark on the horizontal axis, and their names; by default round values.
        log: Which axes are logarithmic.
        ring: A place to single out.
        note: A text in the upper right corner.
        kind: "small" charts stand side by side, "wide" ones alone, a "panel" beside another; "square" ones are of
            shares in percent.
    """

    title: str
    remark: str
    series: Sequence[Series]
    x: tuple[float, float]
    y: tuple[float, float]
    x_name: str = "epoch"
    y_name: str = ""
    x_ticks: Sequence[tuple[float, str]] = ()
    log: Literal["", "x", "xy"] = ""
    ring: Place | None = None
    note: str = ""
    kind: Kind = "small"
    size: tuple[int, int] = field(init=False)  # (width, height)
    across: Axis = field(init=False)
    down: Axis = field(init=False)

    def __post_init__(self) -> None:
        (width, height), (left, right, top, bottom) = SIZES[self.kind]
        object.__setattr__(self, "size", (width, height))
        object.__setattr__(self, "across", Axis(*self.x, left, width - right, log="x" in self.log))
        object.__setattr__(self, "down", Axis(*self.y, height - bottom, top, log="y" in self.log))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(places for series in self.series for places in (*series.lines, series.marks))

    @property
    def columns(self) -> list[tuple[float, str]]:
        """Places and texts of the ticks of the horizontal axis."""
        named = [(self.across(value), name) for value, name in self.x_ticks]
        return named or self.across.ticks(TICKS[self.kind][0])

    @property
    def rows(self) -> list[tuple[float, str]]:
        """Places and texts of the ticks of the vertical axis."""
        return self.down.ticks(TICKS[self.kind][1])

    def place(self, point: Place) -> Place:
        """Return where a point is drawn."""
        return self.across(point[0]), self.down(point[1])

    def path(self, points: Iterable[Place]) -> str:
        """Return a line as SVG has it."""
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in map(self.place, points))


class Point(NamedTuple):
    """A value, or the mean of several with the lowest and the highest of them."""

    x: float
    y: float
    low: float
    high: float


def points_of(values: Iterable[Place]) -> tuple[list[Point], int]:
    """Turn (x, y) into at most `MAX_POINTS` points; what is not a finite number is left out.

    Returns:
        The points, and how many values each is the mean of.
    """
    finite = [(x, y) for x, y in values if math.isfinite(x) and math.isfinite(y)]
    group = max(1, math.ceil(len(finite) / MAX_POINTS))
    points = []
    for first in range(0, len(finite), group):
        xs, ys = zip(*finite[first : first + group], strict=True)
        points.append(Point(math.fsum(xs) / len(xs), math.fsum(ys) / len(ys), min(ys), max(ys)))
    return points, group


def curve(
    label: str, colour: Colour, points: Sequence[Point], *, marked: bool = False, with_band: bool = True
) -> Series:
    """Return points as a line, with a band from the lowest to the highest of what each stands for.

    Args:
        label: For the legend.
        colour: Of the line.
        points: From left to right.
        marked: Whether the points are drawn; few points always are.
        with_band: Whether there is a band; those of several lines would hide each other.
    """
    line = [(point.x, point.y) for point in points]
    band: list[Place] = []
    if with_band and any(point.high > point.low for point in points):
        band = [(point.x, point.high) for point in points] + [(point.x, point.low) for point in reversed(points)]
    marks = line if len(line) <= (MAX_MARKED if marked else FEW) else []
    stroke = STROKES.get(colour, "solid")
    return Series(label, colour, [line] if line else [], marks, band, stroke, marked=marked)


def range_of(
    series: Iterable[Series], *, from_zero: bool = False, highest: float | None = None, log: bool = False
) -> tuple[float, float]:
    """Return the ends of a vertical axis, somewhat beyond the values, none of which is negative.

    Args:
        series: What is drawn.
        from_zero: Whether it begins at 0.
        highest: The largest value that there can be, where it ends at the latest.
        log: Whether the axis is logarithmic.
    """
    values = [y for own in series for places in (*own.lines, own.marks, own.band) for _, y in places]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if log:
        beyond = (high / low) ** 0.06 if 0 < low < high else 1.1
        return (low / beyond, high * beyond) if values else (1.0, 10.0)  # an axis has to end somewhere
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0  # of equal values: around them
    low = 0.0 if from_zero else max(0.0, low - margin)
    high += margin
    return low, high if highest is None else min(high, highest)
