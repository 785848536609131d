"""Which images of a split a page shows: some without regard to how well they went, and a few of the worst."""

from __future__ import annotations

import numpy as np

SPREAD_IMAGES = 8  # at even distances in the split
WORST_IMAGES = 4  # of the others


def evenly(total: int, count: int = SPREAD_IMAGES) -> list[int]:
    """Return at most `count` numbers below `total` at even distances, the first and the last among them."""
    return list(dict.fromkeys(np.linspace(0, total - 1, min(count, total)).astype(int).tolist()))
