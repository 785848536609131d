"""Tensors in a safetensors file, read by slices: what a slice touches is compared with its digests.

C channels, H×W map or image
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vision_longformer.utils.digests import note_missing
from vision_longformer.utils.tensor_files import Entry, check_bytes, open_file, read_header

KINDS = {torch.float16: np.float16, torch.float32: np.float32, torch.bool: np.bool_, torch.uint8: np.uint8}


class CheckedFile:
    """An open file. A block of it is compared with its digest when it is first read, and never again.

    Args:
        path: Of one without digests, which is older, a note is logged.
        verify: Whether to compare at all.

    Raises:
        ValueError: It is no safetensors file, or what it says of itself is damaged.
    """

    def __init__(self, path: Path, *, verify: bool) -> None:
        self._path, self._file = path, open_file(path)
        self.header = read_header(self._file, path, verify=verify)
        if verify and not self.header.block:
            note_missing(path)
        self._unread = np.full(len(self.header.digests) if verify else 0, True)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def array(self, name: str) -> CheckedArray:
        """Return a tensor.

        Raises:
            KeyError: There is none of this name, or it is of a type that features do not have.
        """
        return CheckedArray(self, self.header.entries[name])

    def map(self, entry: Entry) -> NDArray[Any]:
        """Return all of a tensor, of which nothing is read yet."""
        kind = KINDS[entry.dtype]
        if entry.begin == entry.end:
            return np.empty(entry.shape, kind)
        return np.memmap(self._path, kind, "r", self.header.start + entry.begin, entry.shape)

    def check(self, begin: int, end: int) -> None:
        """Compare the blocks that hold these bytes of the tensors.

        Raises:
            DamagedError: They are not as they were written.
        """
        if not len(self._unread) or begin >= end:
            return
        first, last = begin // self.header.block, (end - 1) // self.header.block
        for number in (np.flatnonzero(self._unread[first : last + 1]) + first).tolist():
            check_bytes(self._file, self._path, self.header, range(number, number + 1))
            self._unread[number] = False


class CheckedArray:
    """A tensor in a file; whole numbers and slices of it give NumPy arrays in memory.

    Attributes:
        shape: Its sides.
        dtype: Of its values.
    """

    def __init__(self, file: CheckedFile, entry: Entry) -> None:
        self._file, self._entry, self._values = file, entry, file.map(entry)
        self.shape, self.dtype = entry.shape, self._values.dtype

    def __getitem__(self, parts: Any) -> NDArray[Any]:
        """Read a part.

        Raises:
            DamagedError: What is read is not as it was written.
        """
        part = self._values[parts]
        given = parts if isinstance(parts, tuple) else (parts,)
        if len(self.shape) == 3 and len(given) == 3 and part.size:  # of a map rows, in some channels
            channels, rows = (_hull(each, side) for each, side in zip(given[:2], self.shape[:2], strict=True))
            for channel in range(*channels):
                self._check_rows(channel * self.shape[1] + rows[0], channel * self.shape[1] + rows[1])
        elif len(self.shape) == 2 and given[0] is not Ellipsis and part.size:
            self._check_rows(*_hull(given[0], self.shape[0]))
        elif part.size:
            self._file.check(self._entry.begin, self._entry.end)
        return np.array(part)

    def _check_rows(self, top: int, bottom: int) -> None:
        row = (self._entry.end - self._entry.begin) // max(1, int(np.prod(self.shape[:-1])))
        self._file.check(self._entry.begin + top * row, self._entry.begin + bottom * row)


def _hull(part: int | slice, side: int) -> tuple[int, int]:
    """Return the first and one past the last place of an axis that a part reads."""
    if not isinstance(part, slice):
        place = int(part) % side
        return place, place + 1
    places = range(*part.indices(side))
    return min(places), max(places) + 1
