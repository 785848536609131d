"""The strides of a pyramid."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from vision_longformer.config import _require, _require_integer


def require_strides(strides: Sequence[int]) -> None:
    """Check the strides of a pyramid.

    Raises:
        ValueError: One is not twice the one before.
    """
    _require(len(strides) > 0, field="strides", value=strides, rule="must hold at least one")
    for stride in strides:
        _require_integer(stride, field="strides", minimum=1)
    for finer, coarser in itertools.pairwise(strides):
        _require(coarser == 2 * finer, field="strides", value=strides, rule="each must be twice the one before")
