"""The page of a probe: how much of the labels each model's frozen features give away, and what is confused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vision_longformer.evaluation.confusions import Pair, wilson_interval
from vision_longformer.reports.matrix import choose_matrix
from vision_longformer.reports.pages import write_page
from vision_longformer.utils.words import percent

NAMES = {"neighbours": "20 nearest neighbours", "linear": "Linear probe"}


@dataclass(frozen=True)
class Row:
    """What was found of a model.

    Attributes:
        model: Its name.
        features: How many it gives of an image.
        images: How many were asked of.
        right: How many of them each measure had right.
        pairs: Images of every (true class, class of the linear probe).
    """

    model: str
    features: int
    images: int
    right: Mapping[str, int]
    pairs: Counter[tuple[int, int]]

    def ends(self, measure: str) -> tuple[float, float]:
        """Return the 95% interval of a share."""
        return wilson_interval(self.right[measure], self.images)

    def share(self, measure: str) -> float:
        """Return the share that a measure had right."""
        return self.right[measure] / self.images

    def words(self, measure: str) -> str:
        """Return a share with its interval."""
        low, high = self.ends(measure)
        return f"{percent(self.right[measure], self.images)} ({100 * low:.0f}–{100 * high:.0f})"


def write_probe_page(target: Path, title: str, rows: Sequence[Row], classes: Sequence[str]) -> None:
    """Write the page.

    Raises:
        OSError: The disk is full, or the place cannot be written.
    """
    best = max(rows, key=lambda row: row.right["linear"])
    wrong = [Pair(*pair, images=tuple(range(count))) for pair, count in best.pairs.most_common() if pair[0] != pair[1]]
    shown = {
        "title": title,
        "rows": rows,
        "names": NAMES,
        "best": best,
        "matrix": choose_matrix(best.pairs, wrong, classes),
    }
    write_page(target, "probe.html", shown)
