"""The best detections of one level of a pyramid, of all of it at once or part by part.

H×W map, A anchors of a position, K classes, n candidates

A candidate is a class at an anchor. Its place is its number among all of the level, counted row by row: the class
changes fastest, then the anchor, then the column. Of equal scores the first place wins, so that the choice does not
depend on how many parts the level came in. PyTorch's `topk` promises no order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Candidates:
    """Candidates of one level, best first.

    Attributes:
        scores: (n,) from 0 to 1.
        places: (n,) from 0 to H×W×A×K - 1.
        offsets: (n, 4) from the anchors, as the head gives them.
    """

    scores: Tensor
    places: Tensor
    offsets: Tensor


def choose(logits: Tensor, offsets: Tensor, *, first: int = 0, threshold: float, limit: int) -> Candidates:
    """Return the best candidates of some rows of a level.

    Args:
        logits: (anchors, K).
        offsets: (anchors, 4).
        first: Place of the first logit in the level.
        threshold: Score that candidates must pass.
        limit: How many to keep.
    """
    scores = logits.sigmoid().flatten()
    passing = torch.where(scores > threshold)[0]
    numbers = passing[_best(scores[passing], limit)]
    return Candidates(scores[numbers], first + numbers, offsets[numbers // logits.shape[1]])


def merge(parts: Sequence[Candidates], limit: int) -> Candidates:
    """Return the best of several parts of a level, which follow each other from top to bottom."""
    scores, places, offsets = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("scores", "places", "offsets")
    )
    numbers = _best(scores, limit)
    return Candidates(scores[numbers], places[numbers], offsets[numbers])


def _best(scores: Tensor, limit: int) -> Tensor:
    """Return the numbers of the `limit` largest scores, the largest first; of equal ones, the first."""
    kept = torch.arange(len(scores), device=scores.device)
    if len(scores) > limit:  # sorting all of them would take several times as long
        least = scores.topk(limit).values[-1]
        above = scores > least
        equal = torch.where(scores == least)[0][: limit - int(above.sum())]
        above[equal] = True
        kept = torch.where(above)[0]
    return kept[scores[kept].sort(descending=True, stable=True).indices]
