"""COCO's run lengths in NumPy: the compressed text, its numbers, and the mask that they describe.

A mask (H, W) is read column by column, from the top left. Its runs count pixels that are 0, 1, 0, 1 and so on; the
first count is 0 where the mask begins with a 1. The text writes each count, from the fourth on as its difference from
the one two before it, in groups of five bits, the lowest first: a character holds 48 + five bits + 32 if another
follows, and the highest bit of the last group is the sign (pycocotools, maskApi.c, rleToString).

What people bring is decoded here, and checked, before compiled code sees it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Runs = NDArray[np.uint32]

MAX_PIXELS_OF_RUNS = 2**31 - 1  # compiled readers count in 32 bits
_FIRST, _MORE, _DATA, _SIGN, _BITS = 48, 32, 31, 16, 5
_LONGEST = 7  # characters of a count: 35 bits


def decode(text: str | bytes) -> NDArray[np.int64]:
    """Return the counts that a compressed text holds, which may be negative: `checked` says whether they are runs.

    Raises:
        ValueError: The text is no such code.
    """
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    counts: list[int] = []
    count = bits = 0
    for character in data:  # texts are short: a loop is faster than arrays
        code = character - _FIRST
        if not 0 <= code < 2 * _MORE:
            raise ValueError("its compressed counts have a character that the code does not have")
        count |= (code & _DATA) << bits
        bits += _BITS
        if code & _MORE:
            if bits == _BITS * _LONGEST:
                raise ValueError("its compressed counts hold a number of more than 32 bits")
            continue
        if code & _SIGN:
            count -= 1 << bits
        if len(counts) > 2:
            count += counts[-2]
        counts.append(count)
        count = bits = 0
    if bits:
        raise ValueError("its compressed counts are cut short")
    if not counts:
        raise ValueError("its compressed counts are empty")
    return np.array(counts, np.int64)


def encode(runs: Runs) -> bytes:
    """Return the compressed text of runs."""
    counts = runs.astype(np.int64)
    differences = counts.copy()
    differences[3:] -= counts[1:-2]
    # A count takes as many groups as leave only copies of its sign: the smallest n with -2^(5n-1) <= x < 2^(5n-1).
    magnitude = np.where(differences < 0, ~differences, differences)
    limits = np.int64(1) << (_BITS * np.arange(1, _LONGEST + 1) - 1)
    length = 1 + np.searchsorted(limits, magnitude, side="right")
    place = np.arange(length.sum()) - np.repeat(length.cumsum() - length, length)
    groups = (np.repeat(differences, length) >> (_BITS * place)) & _DATA
    groups += np.where(place < np.repeat(length, length) - 1, _MORE, 0)
    return bytes((groups + _FIRST).astype(np.uint8))


def checked(counts: NDArray[np.int64] | Sequence[int], *, size: tuple[int, int]) -> Runs:
    """Return counts as runs of a mask of `size` (height, width), without runs of length 0 but for the first.

    Raises:
        ValueError: A count is negative, or they do not add up to the mask's pixels.
    """
    pixels = size[0] * size[1]
    try:
        numbers = np.asarray(counts, dtype=np.int64)
    except OverflowError as error:
        raise ValueError("its counts hold a number of more than 64 bits") from error
    if numbers.size and int(numbers.min()) < 0:
        raise ValueError(f"its counts hold a negative number ({int(numbers.min())})")
    # sums of numbers above `pixels` could overflow
    total = int(numbers.sum()) if numbers.size and int(numbers.max()) <= pixels else sum(map(int, numbers))
    if total != pixels:
        raise ValueError(f"its counts add up to {total} pixels, and the image has {size[0]}×{size[1]} = {pixels}")
    if numbers.size > 1 and not numbers[1:].all():
        numbers = _without_empty_runs(numbers)
    return numbers.astype(np.uint32)


def from_mask(mask: NDArray[np.bool_]) -> Runs:
    """Return the runs of a mask (H, W)."""
    pixels = np.asarray(mask, dtype=bool).ravel(order="F")
    if not pixels.size:
        return np.zeros(0, np.uint32)
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [pixels.size]]))
    return (np.concatenate([[0], runs]) if pixels[0] else runs).astype(np.uint32)


def to_mask(runs: Runs, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask (H, W) of runs."""
    mask = np.zeros(size, bool)
    if runs.size < 2:
        return mask
    # Only the columns from the first 1 to the last are written: most objects are small.
    height, width = size
    empty_right = int(runs[-1]) // height if runs.size % 2 else 0
    first, end = int(runs[0]) // height, width - empty_right
    counts = runs.astype(np.int64)
    counts[0] -= first * height
    counts[-1] -= empty_right * height
    mask[:, first:end] = np.repeat(np.arange(runs.size) % 2 == 1, counts).reshape(end - first, height).T
    return mask


def area(runs: Runs) -> int:
    """Return the number of pixels of a mask."""
    return int(runs[1::2].sum(dtype=np.int64))


def from_crop(crop: NDArray[np.bool_], *, corner: tuple[int, int], size: tuple[int, int]) -> Runs:
    """Return the runs of a mask of `size` that is `crop`, (h, w), with its top left at `corner` (row, column).

    The whole mask is never made: time and memory go with the crop. Parts of it that lie outside are dropped.
    """
    height, width = size
    top, left = corner
    crop = crop[max(0, -top) : max(0, height - top), max(0, -left) : max(0, width - left)]
    top, left = max(top, 0), max(left, 0)
    pixels = np.asarray(crop, dtype=bool)
    # Where the value changes along each column, padded above and below by a 0: each 1-run's start and end.
    padded = np.zeros((pixels.shape[1], pixels.shape[0] + 2), dtype=np.int8)
    padded[:, 1:-1] = pixels.T
    columns, rows = np.nonzero(np.diff(padded, axis=1))
    places = (columns + left).astype(np.int64) * height + rows + top
    edges = np.concatenate([[0], places, [height * width]])
    return checked(np.diff(edges), size=size)


def _without_empty_runs(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Join runs that only an empty run keeps apart: compiled intersections end at two empty runs side by side."""
    values = np.arange(counts.size) % 2
    values, counts = values[counts > 0], counts[counts > 0]
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    joined = np.add.reduceat(counts, starts)
    return np.concatenate([[0], joined]) if values[0] else joined
