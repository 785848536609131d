"""The best detections of one level of a pyramid, of all of it at once or part by part.

H×W map, A anchors of a position, K classes, n candidates

A candidate is a class at an anchor. Its place is its number among all of the level, counted row by row: the class
changes fastest, then the anchor, then the column. Of equal logits the first place wins, so that the choice does not
depend on how many parts the level came in: PyTorch's `topk` promises no order. And logits are compared, not scores, as
PyTorch's sigmoid of the same number differs in its last bit by where in a tensor that number stands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Candidates:
    """Candidates of one level, best first.

    Attributes:
        logits: (n,)
        places: (n,) from 0 to H×W×A×K - 1.
        offsets: (n, 4) from the anchors, as the head gives them.
    """

    logits: Tensor
    places: Tensor
    offsets: Tensor


def choose(logits: Tensor, offsets: Tensor, *, first: int = 0, threshold: float, limit: int) -> Candidates:
    """Return the best candidates of some rows of a level.

    Args:
        logits: (anchors, K).
        offsets: (anchors, 4).
        first: Place of the first logit in the level.
        threshold: Score that candidates must pass, from 0 to 1.
        limit: How many to keep.
    """
    flat = logits.flatten()
    least = math.log(threshold / (1 - threshold)) if 0 < threshold < 1 else (-math.inf if threshold == 0 else math.inf)
    passing = torch.where(flat > least)[0]
    numbers = passing[_best(flat[passing], limit)]
    return Candidates(flat[numbers], first + numbers, offsets[numbers // logits.shape[1]])


def merge(parts: Sequence[Candidates], limit: int) -> Candidates:
    """Return the best of several parts of a level, which follow each other from top to bottom."""
    logits, places, offsets = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("logits", "places", "offsets")
    )
    numbers = _best(logits, limit)
    return Candidates(logits[numbers], places[numbers], offsets[numbers])


def _best(logits: Tensor, limit: int) -> Tensor:
    """Return the numbers of the `limit` largest logits, the largest first; of equal ones, the first."""
    kept = torch.arange(len(logits), device=logits.device)
    if len(logits) > limit:  # sorting all of them would take several times as long
        least = logits.topk(limit).values[-1]
        above = logits > least
        equal = torch.where(logits == least)[0][: limit - int(above.sum())]
        above[equal] = True
        kept = torch.where(above)[0]
    return kept[logits[kept].sort(descending=True, stable=True).indices]
