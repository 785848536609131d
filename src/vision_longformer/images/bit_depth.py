"""Whole numbers that do not use their type as it is: few bits, or zero for white."""

from __future__ import annotations

import numpy as np

from vision_longformer.images.decode import ImageError
from vision_longformer.images.reader import Array


def full_depth(values: Array, bits: int, *, white_is_zero: bool = False) -> Array:
    """Spread unsigned values of a few bits over all bits of their type, so that the largest stays the largest.

    Args:
        values: Of any shape; booleans, other numbers and those of more than 16 bits stay as they are.
        bits: That a value uses.
        white_is_zero: Whether the smallest value is white, and becomes the largest.

    Raises:
        ImageError: White is zero, and the values are no unsigned numbers.
    """
    if values.dtype.kind == "u" and bits < 8 * values.dtype.itemsize <= 16:
        levels = np.linspace(0, 2 ** (8 * values.dtype.itemsize) - 1, 2**bits).round().astype(values.dtype)
        values = levels[np.minimum(values, 2**bits - 1)]
    if not white_is_zero:
        return values
    if values.dtype.kind not in "bu":
        raise ImageError(f"zero is white in it, which is not read for values of type {values.dtype}")
    return np.invert(values)
