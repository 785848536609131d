"""Where a map waits between two passes: in memory, or in a file of a work folder.

H×W map, n rows, C channels

Files are read and written by calls, not mapped into memory: what the system caches of them is then not part of the
process, and a full disk is an error that can be caught.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import torch
import xxhash
from torch import Tensor

from vision_longformer.streaming.rows import Rows
from vision_longformer.utils.tensor_files import bytes_of

CHECKED_BYTES = 32 * 2**20  # that are read at once


class WorkFolderError(OSError):
    """A map cannot be kept in the work folder; the message names the file and says why."""


class StageMap:
    """An (H, W, C) map, or a strip of H rows of one, that is written and read by rows.

    Attributes:
        shape: (H, W, C).
        dtype: Of its values.
        top: Number of its first row in the whole map.
        valid: (H, W) boolean, true where a token is real; None where all are.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype, *, top: int = 0) -> None:
        self.shape = shape
        self.dtype = dtype
        self.top = top
        self.valid: Tensor | None = None

    def read(self, top: int, bottom: int) -> Tensor:
        """Return rows as (n, W, C); they are counted from the first that it has."""
        raise NotImplementedError

    def _write(self, top: int, tokens: Tensor) -> None:
        raise NotImplementedError

    def rows(self, top: int, bottom: int) -> Rows:
        """Return rows that are counted from the top of the whole map."""
        first, last = top - self.top, bottom - self.top
        return Rows(top, self.read(first, last), None if self.valid is None else self.valid[first:last])

    def write(self, rows: Rows) -> None:
        """Store rows.

        Raises:
            WorkFolderError: The disk is full, or cannot be written.
        """
        self._write(rows.top - self.top, rows.tokens)
        if rows.valid is not None and self.valid is None:
            self.valid = torch.ones(self.shape[:2], dtype=torch.bool)
        if self.valid is not None:
            self.valid[rows.top - self.top : rows.bottom - self.top] = True if rows.valid is None else rows.valid

    def tensor(self) -> Tensor:
        """Return the whole map as (C, H, W), in memory."""
        return self.read(0, self.shape[0]).permute(2, 0, 1)

    def stream(self, step: int) -> Iterator[Rows]:
        """Yield all rows, `step` at a time. Those that were yielded already may be overwritten."""
        bottom = self.top + self.shape[0]
        for top in range(self.top, bottom, step):
            yield self.rows(top, min(top + step, bottom))

    def close(self) -> None:
        """Let go of what the map holds; a file stays."""

    def remove(self) -> None:
        """Let go of the map for good, its file included."""
        self.close()


class MemoryMap(StageMap):
    """A map in memory; `read` returns views."""

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, *, top: int = 0) -> None:
        super().__init__(shape, dtype, top=top)
        self._tokens: Tensor = torch.empty(shape, dtype=dtype, device=device)

    def read(self, top: int, bottom: int) -> Tensor:
        """Return a view of rows, (n, W, C)."""
        return self._tokens[top:bottom]

    def _write(self, top: int, tokens: Tensor) -> None:
        self._tokens[top : top + tokens.shape[0]] = tokens

    def remove(self) -> None:
        """Free the memory."""
        self._tokens = self._tokens.new_empty(0, *self.shape[1:])


class FileMap(StageMap):
    """A map in a file: rows of values in the machine's byte order, without a header.

    Args:
        path: Made if it is not there.
        shape: (H, W, C).
        dtype: Of its values.
        device: Where rows go that are read.
        top: Number of its first row in the whole map.

    Attributes:
        digests: (H,) of the rows, as they were written.

    Raises:
        WorkFolderError: The file cannot be made.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, *, top: int = 0
    ) -> None:
        super().__init__(shape, dtype, top=top)
        self.path = path
        self._device = device
        self._row_bytes = shape[1] * shape[2] * dtype.itemsize
        self.digests = torch.zeros(shape[0], dtype=torch.int64)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise explained(path, error) from error

    def read(self, top: int, bottom: int) -> Tensor:
        """Return rows as a new (n, W, C) tensor.

        Raises:
            WorkFolderError: The file ends before these rows, or cannot be read.
        """
        tokens = torch.empty(bottom - top, *self.shape[1:], dtype=self.dtype)
        left, place = bytes_of(tokens), top * self._row_bytes
        while left:
            try:
                count = os.preadv(self._file, [left[: 2**30]], place)
            except OSError as error:
                raise explained(self.path, error) from error
            if count == 0:
                raise WorkFolderError(f"{self.path}: it is cut short; remove it and begin again")
            left, place = left[count:], place + count
        return tokens.to(self._device)

    def _write(self, top: int, tokens: Tensor) -> None:
        left, place = bytes_of(tokens.cpu().contiguous()), top * self._row_bytes
        self.digests[top : top + len(tokens)] = self._digests(left)
        while left:
            try:
                count = os.pwritev(self._file, [left[: 2**30]], place)
            except OSError as error:
                raise explained(self.path, error) from error
            left, place = left[count:], place + count

    def check(self, digests: Tensor) -> None:
        """Compare what the file holds with the digests of its rows.

        Raises:
            WorkFolderError: It differs, or cannot be read.
        """
        step = max(1, CHECKED_BYTES // max(1, self._row_bytes))
        for top in range(0, self.shape[0], step):
            bottom = min(top + step, self.shape[0])
            self.digests[top:bottom] = self._digests(bytes_of(self.read(top, bottom).cpu()))
        if not torch.equal(self.digests, digests):
            raise WorkFolderError(f"{self.path}: is damaged; remove it and begin again")

    def _digests(self, data: memoryview) -> Tensor:
        """Return the digest of each row of some, as PyTorch stores it: as a signed number."""
        rows = range(0, len(data), max(1, self._row_bytes))
        found = [xxhash.xxh3_64_intdigest(data[begin : begin + self._row_bytes]) for begin in rows]
        return torch.tensor([number - 2**64 if number >= 2**63 else number for number in found], dtype=torch.int64)

    def sync(self) -> None:
        """Wait until all rows have reached the disk.

        Raises:
            WorkFolderError: They cannot.
        """
        try:
            os.fsync(self._file)
        except OSError as error:
            raise explained(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        """Remove the file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()


def explained(path: Path, error: OSError) -> WorkFolderError:
    """Return the error of a work folder, or a file in it, in a sentence that says what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WorkFolderError(f"{path}: the disk is full; make room there, or choose another work folder")
    return WorkFolderError(f"{path}: {(error.strerror or str(error)).lower()}")
