"""A confusion matrix: rows are true classes, columns what they were taken for. `elements.html` draws it as SVG."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vision_longformer.evaluation.confusions import Pair

MAX_WHOLE = 40  # classes up to here are all shown
PICKED = 24  # of more, those in the most frequent confusions
MAX_LABEL = 20  # characters of a class name
CHARACTER = 7.6  # width of one, in SVG units, at the style sheet's font size of 13
OTHER = -1  # the column of all classes that are not shown


class Cell(NamedTuple):
    """A coloured square.

    Attributes:
        row: Counted from 0.
        column: Counted from 0.
        kind: "right" or "wrong".
        strength: Its opacity: the root of its share of the row, so that a few images of many still show.
        text: What stands in it.
        title: What is shown where one points.
    """

    row: int
    column: int
    kind: str
    strength: float
    text: str
    title: str


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

    @property
    def partial(self) -> bool:
        """Whether there are classes that are not shown."""
        return len(self.labels) < len(self.classes)

    @property
    def names(self) -> list[str]:
        """What stands above the columns, and, but for "others", beside the rows."""
        return [shorten(self.classes[label]) for label in self.labels] + ["others"] * self.partial

    @property
    def widths(self) -> tuple[float, float]:
        """Width of the longest name, and of the longest number."""
        digits = 4 if self.shares else len(str(max(self.counts.values(), default=0)))
        return max(map(width_of, self.names), default=0) * CHARACTER, digits * CHARACTER

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
                    kind = "right" if truth == predicted else "wrong"
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
