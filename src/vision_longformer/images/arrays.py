"""Arrays as images: NumPy's, in memory or in `.npy` files, and everything else that can be sliced.

H×W image, n rows, C channels
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from vision_longformer.images.errors import image_errors
from vision_longformer.images.reader import Array, ImageError, ImageInfo, Mask, PixelRows, Window, check_file, identity


class ArrayReader:
    """Reads an (H, W) or (H, W, C) array.

    Args:
        array: Anything with `shape`, `dtype` and NumPy's slicing. What NumPy's masked arrays mask is missing.
        name: For messages.
        valid: (H, W) boolean, false where a pixel is missing; None where all are there.
        preferred_rows: Rows that are cheapest to read together.
        opacity: Whether the last of two or four channels is opacity.
        identity: Changes when the file does.
        value_range: Stored values that become 0 and 1, where their type does not say so.

    Raises:
        ImageError: The array has no pixels, or another number of axes.
    """

    def __init__(
        self,
        array: Any,
        *,
        name: str = "the image",
        valid: Mask | None = None,
        preferred_rows: int = 1,
        opacity: bool = True,
        identity: str = "",
        value_range: tuple[float, float] | None = None,
    ) -> None:
        shape = tuple(array.shape)
        if len(shape) not in (2, 3) or 0 in shape:
            raise ImageError(
                f"{name}: expected an array of shape (height, width) or (height, width, channels), got {shape}"
            )
        if valid is not None and valid.shape != shape[:2]:
            raise ImageError(f"{name}: its mask has shape {valid.shape}, the image {shape[:2]}")
        self._array, self._valid = array, valid
        self.info = ImageInfo(
            name=name,
            height=shape[0],
            width=shape[1],
            channels=shape[2] if len(shape) == 3 else 1,
            dtype=np.dtype(array.dtype),
            preferred_rows=preferred_rows,
            opacity=opacity,
            identity=identity,
            value_range=value_range,
        )

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        """Return rows `top` to `bottom`. See `Reader`."""
        return self._read((slice(top, bottom), slice(0, self.info.width)))

    def read_window(self, window: Window) -> PixelRows:
        """Return a part of the array."""
        return self._read((slice(window.top, window.bottom), slice(window.left, window.right)))

    def _read(self, place: tuple[slice, slice]) -> PixelRows:
        with image_errors(self.info.name):
            found = self._array[place]
            values: Array = np.asarray(found)
        valid = None if self._valid is None else self._valid[place]
        if isinstance(found, np.ma.MaskedArray):
            there = ~np.ma.getmaskarray(found)
            valid = there if valid is None else there & (valid if there.ndim == 2 else valid[:, :, None])
        return PixelRows(values if values.ndim == 3 else values[:, :, None], valid)

    def close(self) -> None:
        """Let go of the array."""
        self._array = None


class NpyReader(ArrayReader):
    """Reads the array in a `.npy` file by rows, with calls: nothing of them stays in the process once a band is done.

    Arrays in Fortran's order lie in the file column by column. Of each column, the rows are read by a call of their
    own, which is slower, and takes no more memory.

    Args:
        path: Of the file.

    Raises:
        ImageError: It is missing, damaged, or no array of pixels.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(_Rows(path), name=str(path), identity=identity(path))

    def close(self) -> None:
        """Close the file."""
        if self._array is not None:
            self._array.file.close()
        super().close()


class _Rows:
    """An array in a file, whose rows and columns can be sliced."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        with image_errors(str(path), "NumPy file"):
            check_file(path)
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # to check it; it is not kept
            self.file = Path(path).open("rb", buffering=0)  # noqa: SIM115, closed by the reader
        self.shape: tuple[int, ...] = mapped.shape
        self.dtype: np.dtype[Any] = mapped.dtype
        self._offset = int(mapped.offset)
        self._by_columns = not mapped.flags.c_contiguous

    def __getitem__(self, place: tuple[slice, slice]) -> Array:
        (top, bottom, _), (left, right, _) = (part.indices(size) for part, size in zip(place, self.shape, strict=False))
        height, width, *channels = self.shape
        shape = (bottom - top, right - left, *channels)
        if self._by_columns:
            values = np.empty(shape[::-1], self.dtype)  # (C, w, n)
            for channel, plane in enumerate(values.reshape(-1, right - left, bottom - top)):
                for column, pixels in enumerate(plane, start=left):
                    self._read(pixels, ((channel * width + column) * height + top) * self.dtype.itemsize)
            return values.transpose()
        values = np.empty(shape, self.dtype)
        pixel = self.dtype.itemsize * math.prod(channels)
        if right - left == width:  # all of it lies together
            self._read(values, top * width * pixel)
            return values
        for row, pixels in enumerate(values, start=top):
            self._read(pixels, (row * width + left) * pixel)
        return values

    def _read(self, values: Array, start: int) -> None:
        """Fill an array with what lies in the file from `start` on."""
        self.file.seek(self._offset + start)
        view, done = values.reshape(-1).view(np.uint8).data, 0
        while done < len(view):
            count = self.file.readinto(view[done:])
            if not count:
                raise ValueError("it is cut short")
            done += count

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()
