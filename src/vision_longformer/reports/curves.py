"""Line charts as SVG for the pages of runs: they follow the page's colours, light or dark, and need no library."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from vision_longformer.reports.axes import Axis

WIDTH, HEIGHT = 480, 270  # in SVG units, near CSS pixels
LEFT, RIGHT, TOP, BOTTOM = 72, 16, 14, 44  # margins around the axes
MAX_POINTS = 240  # a longer series is averaged
MAX_MARKED = 60  # a longer series is a line without points
FEW = 5

Colour = Literal["blue", "orange", "green", "purple", "gray"]  # of the page; all but the first two are broken lines


class Point(NamedTuple):
    """A value, or the mean of several with the lowest and the highest of them."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        label: For the legend.
        colour: Of the page's palette.
        points: From left to right; see `points_of`.
        marked: Whether the points are drawn, as circles; few points always are.
    """

    label: str
    colour: Colour
    points: Sequence[Point]
    marked: bool = False


@dataclass(frozen=True)
class Chart:
    """Axes and lines.

    Attributes:
        title: What it shows.
        unit: Of the vertical axis, for readers who cannot see it.
        series: The lines.
        ring: (x, y) of a point to single out.
        from_zero: Whether the vertical axis begins at 0; it never begins below, as no series has values there.
        highest: Largest value that there can be, where the vertical axis ends at the latest.
    """

    title: str
    unit: str
    series: Sequence[Series]
    ring: tuple[float, float] | None = None
    from_zero: bool = False
    highest: float | None = None


def points_of(values: Iterable[tuple[float, float]]) -> tuple[list[Point], int]:
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


def draw_chart(chart: Chart, *, epochs: float) -> str:
    """Return the chart as an <svg> element, its horizontal axis from 0 to `epochs`."""
    points = [point for series in chart.series for point in series.points]
    x = Axis(0.0, epochs, LEFT, WIDTH - RIGHT)
    y = Axis(*_range(points, chart), HEIGHT - BOTTOM, TOP)
    label = html.escape(f"{chart.title}, {chart.unit} by epoch")
    parts = [f"<svg class='chart' viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{label}'>"]
    for value, text in y.ticks(6):
        parts.append(f"<path class='grid' d='M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}'/>")
        parts.append(f"<text x='{LEFT - 8}' y='{y(value) + 5:.1f}' text-anchor='end'>{text}</text>")
    for value, text in x.ticks(6):
        parts.append(f"<text x='{x(value):.1f}' y='{HEIGHT - BOTTOM + 19}' text-anchor='middle'>{text}</text>")
    parts.append(f"<path class='axis' d='M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}'/>")
    parts.append(f"<text x='{(LEFT + WIDTH - RIGHT) / 2}' y='{HEIGHT - 6}' text-anchor='middle'>epoch</text>")
    parts += [_draw_series(series, x, y) for series in chart.series]
    if chart.ring is not None:
        parts.append(f"<circle class='ring' cx='{x(chart.ring[0]):.1f}' cy='{y(chart.ring[1]):.1f}' r='9'/>")
    return "".join([*parts, "</svg>"])


def _range(points: Sequence[Point], chart: Chart) -> tuple[float, float]:
    """Return the ends of the vertical axis: somewhat beyond the values."""
    low = min((point.low for point in points), default=0.0)
    high = max((point.high for point in points), default=1.0)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0  # of equal values: around them
    low = 0.0 if chart.from_zero else max(0.0, low - margin)
    high += margin
    return low, high if chart.highest is None else min(high, chart.highest)


def _draw_series(series: Series, x: Axis, y: Axis) -> str:
    places = [f"{x(point.x):.1f} {y(point.y):.1f}" for point in series.points]
    parts = []
    if any(point.high > point.low for point in series.points):
        above = [f"{x(point.x):.1f} {y(point.high):.1f}" for point in series.points]
        below = [f"{x(point.x):.1f} {y(point.low):.1f}" for point in reversed(series.points)]
        parts.append(f"<path class='band {series.colour}' d='M{'L'.join(above + below)}Z'/>")
    if len(places) > 1:
        parts.append(f"<path class='line {series.colour}' d='M{'L'.join(places)}'/>")
    if len(places) <= (MAX_MARKED if series.marked else FEW):
        for place in places:
            left, top = place.split()
            parts.append(f"<circle class='point {series.colour}' cx='{left}' cy='{top}' r='4'/>")
    return "".join(parts)
