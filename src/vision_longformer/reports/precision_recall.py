"""Precision over recall at IoU 0.5, a small chart for each class."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision_longformer.reports.curves import Colour

SIDE = 200  # of the square between the axes, in SVG units, near CSS pixels
LEFT, RIGHT, TOP, BOTTOM = 54, 18, 10, 40


class Curve(NamedTuple):
    """A line of a chart.

    Attributes:
        name: Of what it is about.
        colour: Of the page's palette.
        precisions: (R,) at `recalls`.
        recalls: (R,) from 0 to 1.
        point: (recall, precision) to mark; None for none.
    """

    name: str
    colour: Colour
    precisions: NDArray[np.float64]
    recalls: NDArray[np.float64]
    point: tuple[float, float] | None = None


def draw_precision_recall(curves: Sequence[Curve], *, label: str) -> str:
    """Return an <svg> element, both axes from 0 to 100%.

    Args:
        curves: The lines.
        label: What they are about, for readers who cannot see them.
    """
    width, height = LEFT + SIDE + RIGHT, TOP + SIDE + BOTTOM
    parts = [f"<svg class='recall' viewBox='0 0 {width} {height}' role='img' aria-label='{html.escape(label)}'>"]
    for share in (0.0, 0.5, 1.0):
        x, y = _place(share, share)
        parts.append(f"<path class='grid' d='M{LEFT} {y:.0f}H{LEFT + SIDE}M{x:.0f} {TOP}V{TOP + SIDE}'/>")
        parts.append(f"<text x='{LEFT - 6}' y='{y + 5:.0f}' text-anchor='end'>{100 * share:.0f}</text>")
        parts.append(f"<text x='{x:.0f}' y='{TOP + SIDE + 17}' text-anchor='middle'>{100 * share:.0f}</text>")
    parts.append(f"<text x='{LEFT + SIDE / 2:.0f}' y='{height - 5}' text-anchor='middle'>recall, %</text>")
    middle = TOP + SIDE / 2
    parts.append(f"<text transform='translate(14 {middle:.0f}) rotate(-90)' text-anchor='middle'>precision, %</text>")
    for curve in curves:
        places = [_place(*pair) for pair in _corners_of(curve)]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f"<path class='line {curve.colour}' d='M{line}'><title>{html.escape(curve.name)}</title></path>")
        if curve.point is not None:
            x, y = _place(*curve.point)
            parts.append(f"<circle class='point {curve.colour}' cx='{x:.1f}' cy='{y:.1f}' r='5'/>")
    return "".join([*parts, "</svg>"])


def _corners_of(curve: Curve) -> list[tuple[float, float]]:
    """Return the (recall, precision) where a curve of steps bends: what lies between is on a line."""
    recalls, precisions = curve.recalls.tolist(), curve.precisions.tolist()
    ends = (0, len(recalls) - 1)
    return [
        (recalls[place], precisions[place])
        for place in range(len(recalls))
        if place in ends or not precisions[place - 1] == precisions[place] == precisions[place + 1]
    ]


def _place(recall: float, precision: float) -> tuple[float, float]:
    return LEFT + recall * SIDE, TOP + (1 - precision) * SIDE
