"""Resolutions of one picture, each half of the one before, written while its rows arrive from top to bottom.

H×W picture, h×w level, n rows
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST = 256  # pixels: a picture whose longer side is so long is not halved any more

Rows = NDArray[Any]  # (n, w) or (n, w, channels)


class Level:
    """One resolution: rows are written as soon as they fill chunks, and go on to the next level, halved.

    Args:
        array: A Zarr array, (h, w) or (channels, h, w).
        coarser: The next level; None for the last.
        chunk: Rows that are written at once; even, so that they are whole pairs of rows.
        halve: Makes half as many rows and columns of rows; one more where their number is odd.
    """

    def __init__(self, array: Any, coarser: Level | None, *, chunk: int, halve: Callable[[Rows], Rows]) -> None:
        self._array, self._coarser, self._chunk, self._halve = array, coarser, chunk, halve
        self._top = 0
        self._waiting: list[Rows] = []

    def add(self, rows: Rows) -> None:
        """Take the next rows."""
        self._waiting.append(rows)
        while sum(map(len, self._waiting)) >= self._chunk:
            self._write(self._chunk)

    def close(self) -> None:
        """Write what is left."""
        if left := sum(map(len, self._waiting)):
            self._write(left)
        if self._coarser is not None:
            self._coarser.close()

    def _write(self, count: int) -> None:
        waiting = np.concatenate(self._waiting)
        rows, self._waiting = waiting[:count], [waiting[count:]]
        self._array[..., self._top : self._top + count, :] = np.moveaxis(rows, 2, 0) if rows.ndim == 3 else rows
        self._top += count
        if self._coarser is not None:
            self._coarser.add(self._halve(rows))


def create_levels(
    group: Any,
    shape: tuple[int, ...],
    *,
    chunk: int,
    halve: Callable[[Rows], Rows],
    dtype: Any,
    compressors: Any,
    axes: Sequence[str],
) -> Level:
    """Create the arrays of all resolutions in a Zarr group, "0" being the finest, and return its level.

    Args:
        group: Where they go.
        shape: (H, W) of the picture, or (channels, H, W).
        chunk: Pixels of a chunk's side.
        halve: See `Level`.
        dtype: Of the arrays, as the others are.
        compressors: As Zarr takes them.
        axes: Names of the dimensions.
    """
    *channels, height, width = shape
    level: Level | None = None
    for number, size in reversed(list(enumerate(halved_sizes((height, width))))):
        array = group.create_array(
            str(number),
            shape=(*channels, *size),
            chunks=(*channels, chunk, chunk),
            dtype=dtype,
            compressors=compressors,
            dimension_names=axes,
        )
        level = Level(array, level, chunk=chunk, halve=halve)
    assert level is not None
    return level


def halved_sizes(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Give (height, width) of all levels, largest first."""
    yield size
    while max(size) > SMALLEST:
        size = (-(-size[0] // 2), -(-size[1] // 2))
        yield size
