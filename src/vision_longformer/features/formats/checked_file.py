"""Tensors in a safetensors file, read by slices: what a slice touches is compared with its digests.

A slice without gaps, such as a whole map or some of its channels, is read from the disk once: what was compared is what
is given. Of others the blocks that they touch are read and compared first.

C channels, H×W map or image
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vision_longformer.utils.digests import PIECE, note_missing
from vision_longformer.utils.tensor_files import Entry, check_block, open_file, read_bytes, read_header

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

    def check(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Compare the blocks that hold these bytes of the tensors: from the first to one past the last of each range.

        Raises:
            DamagedError: They are not as they were written.
        """
        if not self._unread.any():
            return
        block = self.header.block
        touched = {number for begin, end in ranges for number in range(begin // block, (end - 1) // block + 1)}
        for number in sorted(touched):
            if self._unread[number]:
                check_block(self._file, self._path, self.header, number)
                self._unread[number] = False

    def read(self, begin: int, into: memoryview) -> None:
        """Fill memory with bytes of the tensors from `begin` on. Of whole blocks, what is compared is what is given.

        Raises:
            DamagedError: They are not as they were written.
        """
        size, end = self.header.block or PIECE, begin + len(into)
        for place, stop in _pieces(begin, end, size):
            number, piece = place // size, into[place - begin : stop - begin]
            is_whole = place == number * size and stop == min(place + size, self.header.size)
            if len(self._unread) and self._unread[number] and is_whole:
                check_block(self._file, self._path, self.header, number, piece)
                self._unread[number] = False
            else:
                self.check([(place, stop)])
                read_bytes(self._file, self._path, self.header, place, piece)


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
        if isinstance(part, np.ndarray) and part.size and part.flags.c_contiguous:
            return self._read(part)
        if part.size:
            self._file.check(self._touched(parts if isinstance(parts, tuple) else (parts,)))
        return np.array(part)

    def _read(self, part: NDArray[Any]) -> NDArray[Any]:
        """Return a copy of a view of `_values` without gaps, which is read at once."""
        found = np.empty(part.shape, part.dtype)
        begin = part.ctypes.data - self._values.ctypes.data
        self._file.read(self._entry.begin + begin, memoryview(found.reshape(-1).view(np.uint8).data))
        return found

    def _touched(self, parts: tuple[Any, ...]) -> Iterator[tuple[int, int]]:
        """Give from which byte to which a part reads, of a map in each channel."""
        if Ellipsis in parts or len(parts) != len(self.shape) or len(parts) == 1:
            yield self._entry.begin, self._entry.end
            return
        *outer, (top, bottom), _ = (_hull(part, side) for part, side in zip(parts, self.shape, strict=True))
        row = self.shape[-1] * self.dtype.itemsize
        for channel in range(*outer[0]) if outer else [0]:
            begin = self._entry.begin + channel * self.shape[-2] * row
            yield begin + top * row, begin + bottom * row


def _hull(part: int | slice, side: int) -> tuple[int, int]:
    """Return the first and one past the last place of an axis that a part reads."""
    if not isinstance(part, slice):
        place = int(part) % side
        return place, place + 1
    places = range(*part.indices(side))
    return min(places), max(places) + 1


def _pieces(begin: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut a range at the multiples of `size`."""
    while begin < end:
        stop = min(end, (begin // size + 1) * size)
        yield begin, stop
        begin = stop
