"""The classes of an image's pixels, in a file: they may be more than memory holds.

H×W image, n rows
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_longformer.padding import Size
from vision_longformer.streaming.maps import explained


class LabelFile:
    """An (H, W) label image in a file without a name, which the system removes once nobody holds it any more.

    Args:
        size: (height, width).
        dtype: Of the labels.
        folder: On whose disk it is; None takes the system's place for temporary files.

    Raises:
        WorkFolderError: The file cannot be made.
    """

    def __init__(self, size: Size, dtype: np.dtype[Any], *, folder: Path | None) -> None:
        self.size, self.dtype = size, dtype
        self._folder = Path(tempfile.gettempdir()) if folder is None else folder
        try:
            with tempfile.TemporaryFile(dir=self._folder) as file:
                self._file = os.dup(file.fileno())
        except OSError as error:
            raise explained(self._folder, error) from error

    def append(self, rows: NDArray[Any]) -> None:
        """Write the next (n, W) rows.

        Raises:
            WorkFolderError: The disk is full, or cannot be written.
        """
        left = np.ascontiguousarray(rows, self.dtype).reshape(-1).view(np.uint8)
        while left.size:
            try:
                left = left[os.write(self._file, left.data) :]
            except OSError as error:
                raise explained(self._folder, error) from error

    def rows(self, top: int, bottom: int) -> NDArray[Any]:
        """Return rows `top` to `bottom`, (n, W), read from the file."""
        row = self.size[1] * self.dtype.itemsize
        data = bytearray((bottom - top) * row)
        left, place = memoryview(data), top * row
        while left:
            count = os.preadv(self._file, [left[: 2**30]], place)
            left, place = left[count:], place + count
        return np.frombuffer(data, self.dtype).reshape(bottom - top, self.size[1])

    def array(self) -> NDArray[Any]:
        """Return all of it, (H, W): not read, but mapped into memory, for reading only."""
        with open(os.dup(self._file), "rb") as file:
            return np.memmap(file, self.dtype, mode="r", shape=self.size)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)
