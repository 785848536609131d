"""The strides of a pyramid."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from vision_longformer.utils.checks import impossible, require_integer


def require_strides(strides: Sequence[int]) -> None:
    """Check the strides of a pyramid.

    Raises:
        ValueError: One is not twice the one before.
    """
    if not strides:
        raise impossible("strides", strides, "must hold at least one")
    for stride in strides:
        require_integer("strides", stride, minimum=1)
    if any(coarser != 2 * finer for finer, coarser in itertools.pairwise(strides)):
        raise impossible("strides", strides, "each must be twice the one before")
