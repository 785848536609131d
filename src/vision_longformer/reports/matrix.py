"""A confusion matrix as SVG: rows are true classes, columns what their images were taken for."""

from __future__ import annotations

import html
import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vision_longformer.evaluation.confusions import Pair

MAX_WHOLE = 40  # classes up to here are all shown
PICKED = 24  # of more, those in the most frequent confusions
MAX_LABEL = 20  # characters of a class name
CHARACTER = 7.6  # width of one, in SVG units, as the page's font size is 13
DIGIT = 7.6
OTHER = -1  # the column of all classes that are not shown


@dataclass(frozen=True)
class Matrix:
    """Counts to draw.

    Attributes:
        labels: Classes shown, as rows and as columns.
        counts: Images of (true class, predicted class); `OTHER` stands for any class that is not shown.
        totals: Images of each class shown.
        partial: Whether there are classes that are not shown.
    """

    labels: tuple[int, ...]
    counts: Counter[tuple[int, int]]
    totals: Counter[int]
    partial: bool


def choose_matrix(counts: Counter[tuple[int, int]], pairs: Sequence[Pair], *, classes: int) -> Matrix:
    """Return all classes, or of many those in the most frequent confusions.

    Args:
        counts: Images of every (true class, predicted class).
        pairs: Those that were confused, most images first.
        classes: How many there are.
    """
    labels = tuple(range(classes))
    if classes > MAX_WHOLE:
        chosen: dict[int, None] = {}
        for pair in pairs:
            if len(chosen | {pair.truth: None, pair.predicted: None}) > PICKED:
                break
            chosen |= {pair.truth: None, pair.predicted: None}
        labels = tuple(sorted(chosen))
    shown, among, totals = set(labels), Counter[tuple[int, int]](), Counter[int]()
    for (truth, predicted), count in counts.items():
        if truth in shown:
            among[truth, predicted if predicted in shown else OTHER] += count
            totals[truth] += count
    return Matrix(labels, among, totals, partial=len(labels) < classes)


def draw_matrix(matrix: Matrix, classes: Sequence[str], *, shares: bool = False) -> str:
    """Return the matrix as an <svg> element, colours by the share of the row.

    Args:
        matrix: What to draw.
        classes: Names of all classes.
        shares: Write percentages of the row in place of counts.
    """
    names = [shorten(classes[label]) for label in matrix.labels] + ["others"] * matrix.partial
    widest = max(map(_width, names)) * CHARACTER
    digits = 4 if shares else len(str(max(matrix.counts.values(), default=0)))
    cell = max(44 if len(names) <= 12 else 30 if len(names) <= 25 else 24, digits * DIGIT + 6)
    upright = widest <= cell - 4
    left, top = 34 + widest, 32 + (18 if upright else widest * math.sin(math.pi / 4) + 10)
    side = cell * len(names)
    width = left + side + (8 if upright else max(8, widest * math.cos(math.pi / 4) - cell / 2 + 8))
    height = top + cell * len(matrix.labels) + 4
    parts = [
        f"<svg class='matrix' viewBox='0 0 {width:.0f} {height:.0f}' role='img' aria-label='Confusion matrix' "
        f"style='max-width:{width:.0f}px;min-width:{min(width, max(0.8 * width, 300)):.0f}px'>",
        f"<text x='{left + side / 2:.1f}' y='16' class='axis-name' text-anchor='middle'>predicted</text>",
        f"<text transform='translate(16 {top + cell * len(matrix.labels) / 2:.1f}) rotate(-90)' class='axis-name' "
        "text-anchor='middle'>true</text>",
        f"<rect class='ground' x='{left:.1f}' y='{top:.1f}' width='{side:.1f}' "
        f"height='{cell * len(matrix.labels):.1f}'/>",
    ]
    for column, name in enumerate(names):
        place = f"{left + (column + 0.5) * cell:.1f} {top - 8:.1f}"
        turned = "text-anchor='middle'" if upright else ""
        turn = "" if upright else " rotate(-45)"
        parts.append(f"<text transform='translate({place}){turn}' {turned}>{escape(name)}</text>")
    for row, truth in enumerate(matrix.labels):
        y = top + row * cell
        parts.append(
            f"<text x='{left - 8:.1f}' y='{y + cell / 2 + 5:.1f}' text-anchor='end'>{escape(names[row])}</text>"
        )
        columns = [*matrix.labels, OTHER] if matrix.partial else matrix.labels
        for column, predicted in enumerate(columns):
            count = matrix.counts[truth, predicted]
            if count:
                share = count / matrix.totals[truth]
                name = "any class not shown" if predicted == OTHER else classes[predicted]
                title = f"{classes[truth]} taken for {name}: {count:,} of {matrix.totals[truth]:,}"
                kind = "right" if truth == predicted else "wrong"
                parts.append(
                    _cell(left + column * cell, y, cell, _percent(share) if shares else str(count), share, kind, title)
                )
    return "".join([*parts, "</svg>"])


def strength(share: float) -> float:
    """Return the opacity of a share: its root, so that a few images of many still show."""
    return math.sqrt(share)


def shorten(name: str) -> str:
    """Cut a long name."""
    if _width(name) <= MAX_LABEL:
        return name
    kept = ""
    for character in name:
        if _width(kept + character) >= MAX_LABEL:
            break
        kept += character
    return f"{kept}…"


def escape(text: str) -> str:
    """Return text as HTML; bytes of a file name that are no Unicode become question marks."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"))


def _cell(x: float, y: float, cell: float, text: str, share: float, kind: str, title: str) -> str:
    opacity = strength(share)
    ink = "strong" if opacity > 0.85 else "middle" if opacity > 0.55 else "faint"
    return (
        f"<g><title>{escape(title)}</title><rect class='{kind}' x='{x + 0.5:.1f}' y='{y + 0.5:.1f}' "
        f"width='{cell - 1:.1f}' height='{cell - 1:.1f}' fill-opacity='{opacity:.2f}'/>"
        f"<text class='{ink}' x='{x + cell / 2:.1f}' y='{y + cell / 2 + 5:.1f}' text-anchor='middle'>{text}</text></g>"
    )


def _percent(share: float) -> str:
    """Return a share in percent, in four characters at the most."""
    value = 100 * share
    if value < 0.05:
        return "&lt;.1"
    return f"{value:.1f}" if value < 99.95 else "100"


def _width(text: str) -> int:
    """Return the width of a text in narrow characters; CJK and emoji take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
