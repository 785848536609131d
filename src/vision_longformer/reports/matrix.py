"""A confusion matrix: rows are true classes, columns what they were taken for.

`elements.html` draws it as SVG; lengths are in its units, near CSS pixels.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from vision_longformer.evaluation.confusions import Pair

MAX_WHOLE = 40  # classes up to here are all shown
PICKED = 24  # of more, those in the most frequent confusions
MAX_LABEL = 20  # characters of a class name
CHARACTER = 7.6  # width of one at the style sheet's font size of 13
OTHER = -1  # the column of all classes that are not shown


class Cell(NamedTuple):
    """A coloured square.

    Attributes:
        row: Counted from 0.
        column: Counted from 0.
        kind: Whether its images were recognised.
        strength: Its opacity: the root of its share of the row, so that a few images of many still show.
        text: What stands in it.
        title: What is shown where one points.
    """

    row: int
    column: int
    kind: Literal["right", "wrong"]
    strength: float
    text: str
    title: str

    @property
    def ink(self) -> str:
        """The class of a text that is legible on it."""
        return "strong" if self.strength > 0.85 else "middle" if self.strength > 0.55 else "faint"


@dataclass(frozen=True)
class Matrix:
    """Counts to draw.

    Attributes:
        classes: Names of all classes.
        labels: Classes shown, as rows and as columns.
        counts: Images of (true class, predicted class); `OTHER` stands for any class that is not shown.
        totals: Images of each class shown.
        shares: Whether to write percentages of the row in place of counts.
    """

    classes: Sequence[str]
    labels: tuple[int, ...]
    counts: Counter[tuple[int, int]]
    totals: Counter[int]
    shares: bool = False
    cell: float = field(init=False)  # side of a square
    is_upright: bool = field(init=False)  # whether names of columns are
    left: float = field(init=False)
    top: float = field(init=False)
    width: int = field(init=False)
    height: int = field(init=False)

    def __post_init__(self) -> None:
        widest = max(map(width_of, self.names), default=0) * CHARACTER
        digits = 4 if self.shares else len(str(max(self.counts.values(), default=0)))
        count = len(self.names)
        cell = max(44 if count <= 12 else 30 if count <= 25 else 24, digits * CHARACTER + 6)
        is_upright = widest <= cell - 4
        left, top = round(34 + widest, 1), round(32 + (18 if is_upright else widest * math.sin(math.pi / 4) + 10), 1)
        right = 8 if is_upright else max(8.0, widest * math.cos(math.pi / 4) - cell / 2 + 8)
        size = round(left + cell * count + right), round(top + cell * len(self.labels) + 4)
        values = (round(cell, 1), is_upright, left, top, *size)
        for name, value in zip(("cell", "is_upright", "left", "top", "width", "height"), values, strict=True):
            object.__setattr__(self, name, value)

    @property
    def partial(self) -> bool:
        """Whether there are classes that are not shown."""
        return len(self.labels) < len(self.classes)

    @property
    def row_names(self) -> list[str]:
        """What stands beside the rows."""
        return [shorten(self.classes[label]) for label in self.labels]

    @property
    def names(self) -> list[str]:
        """What stands above the columns."""
        return self.row_names + ["others"] * self.partial

    @property
    def side(self) -> float:
        """Width of all columns."""
        return self.cell * len(self.names)

    @property
    def tall(self) -> float:
        """Height of all rows."""
        return self.cell * len(self.labels)

    @property
    def min_width(self) -> int:
        """Width below which a page scrolls."""
        return min(self.width, max(round(0.8 * self.width), 300))

    @property
    def cells(self) -> list[Cell]:
        """The squares that are not empty."""
        found = []
        for row, truth in enumerate(self.labels):
            for column, predicted in enumerate([*self.labels, *[OTHER] * self.partial]):
                count, total = self.counts[truth, predicted], self.totals[truth]
                if count:
                    name = "any class not shown" if predicted == OTHER else self.classes[predicted]
                    title = f"{self.classes[truth]} taken for {name}: {count:,} of {total:,}"
                    text = _percent(count / total) if self.shares else str(count)
                    kind: Literal["right", "wrong"] = "right" if truth == predicted else "wrong"
                    found.append(Cell(row, column, kind, math.sqrt(count / total), text, title))
        return found


def choose_matrix(
    counts: Counter[tuple[int, int]], pairs: Sequence[Pair], classes: Sequence[str], *, shares: bool = False
) -> Matrix:
    """Return all classes, or of many those in the most frequent confusions.

    Args:
        counts: Images of every (true class, predicted class).
        pairs: Those that were confused, most images first.
        classes: Names of all.
        shares: Whether to write percentages of the row in place of counts.
    """
    labels = tuple(range(len(classes)))
    if len(classes) > MAX_WHOLE:
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
    return Matrix(classes, labels, among, totals, shares)


def shorten(name: str) -> str:
    """Cut a long name."""
    if width_of(name) <= MAX_LABEL:
        return name
    kept = ""
    for character in name:
        if width_of(kept + character) >= MAX_LABEL:
            break
        kept += character
    return f"{kept}…"


def width_of(text: str) -> int:
    """Return the width of a text in narrow characters; CJK and emoji take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _percent(share: float) -> str:
    """Return a share in percent, in four characters at the most."""
    value = 100 * share
    if value < 0.05:
        return "<.1"
    return f"{value:.1f}" if value < 99.95 else "100"
