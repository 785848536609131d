"""`.npy` files, read by calls: nothing of them stays in the process once a band is done.

H×W image, n rows, C channels
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from vision_longformer.images.decode import ImageError
from vision_longformer.images.reader import Array, identity
from vision_longformer.images.zarr import ArrayReader


class NpyReader(ArrayReader):
    """Reads the array in a `.npy` file by rows.

    Arrays in Fortran's order lie in the file column by column. Of each column, the rows are read by a call of their
    own, which is slower, and takes no more memory.

    Args:
        path: Of the file.

    Raises:
        ImageError: It is missing, damaged, or no array of pixels.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._rows = _Rows(path)
        super().__init__(self._rows, name=str(path), identity=identity(path))

    def close(self) -> None:
        """Close the file."""
        self._rows.close()
        super().close()


class _Rows:
    """An array in a file, whose rows can be sliced."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # to check it; it is not kept
            self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115, closed by `close`
        except FileNotFoundError as error:
            raise ImageError(f"{path}: there is no such file") from error
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise ImageError(f"{path}: it is no NumPy file, or a damaged one ({error})") from error
        self.shape: tuple[int, ...] = mapped.shape
        self.dtype: np.dtype[Any] = mapped.dtype
        self._offset = int(mapped.offset)
        self._by_columns = not mapped.flags.c_contiguous

    def __getitem__(self, rows: slice) -> Array:
        top, bottom, _ = rows.indices(self.shape[0])
        shape = (bottom - top, *self.shape[1:])
        if self._by_columns:
            return self._read_columns(top, shape)
        self._file.seek(self._offset + top * (self.dtype.itemsize * int(np.prod(shape[1:]))))
        values = np.fromfile(self._file, self.dtype, int(np.prod(shape)))
        if values.size != np.prod(shape):
            raise ValueError("it is cut short")
        return values.reshape(shape)

    def _read_columns(self, top: int, shape: tuple[int, ...]) -> Array:
        values = np.empty(shape[::-1], self.dtype)  # (C, W, n)
        size = self.dtype.itemsize
        for number, column in enumerate(values.reshape(-1, shape[0])):
            self._file.seek(self._offset + (number * self.shape[0] + top) * size)
            if self._file.readinto(column.view(np.uint8).data) != column.nbytes:
                raise ValueError("it is cut short")
        return values.transpose()

    def close(self) -> None:
        self._file.close()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


def open_npy(path: str | os.PathLike[str]) -> NpyReader:
    """Open a `.npy` file without loading it. See `NpyReader`."""
    return NpyReader(path)
