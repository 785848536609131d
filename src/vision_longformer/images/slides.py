"""Whole-slide images of microscopes, as OpenSlide reads them."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from vision_longformer.images.reader import ImageError, ImageInfo, PixelRows, Window, identity

# Rows read at once. Levels whose scale is no whole number are interpolated between pixels; reading always the same
# pieces makes a pixel's value independent of the bands.
PIECE = 256


class SlideReader:
    """Reads one level of a slide by rows, as RGB. Where nothing was scanned is not valid.

    Args:
        path: Of the file.
        level: Of the pyramid, 0 for full resolution.

    Raises:
        ImageError: The file is missing or damaged, is no slide, or has no such level.
        ImportError: openslide is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, level: int = 0) -> None:
        try:
            import openslide
        except ImportError as error:
            raise ImportError(f"{path}: reading it needs openslide: pip install 'vision-longformer[slides]'") from error
        self._error = openslide.OpenSlideError
        try:
            self._file = openslide.OpenSlide(path)
        except (openslide.OpenSlideError, OSError) as error:
            raise ImageError(f"{path}: it is missing, no slide, or a damaged one ({error})") from error
        levels = self._file.level_count
        if not 0 <= level < levels:
            self._file.close()
            raise ImageError(f"{path}: it has {levels} levels of resolution, and no number {level}")
        self._level = level
        width, height = self._file.level_dimensions[level]
        self._pieces: dict[int, NDArray[np.uint8]] = {}
        self.info = ImageInfo(
            name=str(path),
            height=height,
            width=width,
            channels=3,
            dtype=np.dtype(np.uint8),
            preferred_rows=PIECE,
            identity=identity(path),
        )

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        """Return rows `top` to `bottom`. See `Reader`."""
        numbers = range(top // PIECE, -(-bottom // PIECE))
        pieces = {number: self._pieces.get(number) for number in numbers}
        read = {number: self._read(number) if piece is None else piece for number, piece in pieces.items()}
        rgba = np.concatenate([read[number] for number in numbers])[top - numbers[0] * PIECE :][: bottom - top]
        self._pieces = {number: piece for number, piece in read.items() if (number + 1) * PIECE > bottom}
        return self._pixels(rgba)

    def read_window(self, window: Window) -> PixelRows:
        """Return a part of the image. Where levels have no whole scale, it is interpolated anew."""
        return self._pixels(self._region(window))

    @staticmethod
    def _pixels(rgba: NDArray[np.uint8]) -> PixelRows:
        seen = rgba[:, :, 3] > 0
        return PixelRows(np.ascontiguousarray(rgba[:, :, :3]), None if seen.all() else seen)

    def _read(self, number: int) -> NDArray[np.uint8]:
        """Return the (n, W, 4) pixels of a piece, with opacity."""
        top = number * PIECE
        return self._region(Window(top, 0, min(PIECE, self.info.height - top), self.info.width))

    def _region(self, window: Window) -> NDArray[np.uint8]:
        """Return the (n, w, 4) pixels of a window, with opacity."""
        size = (window.width, window.height)
        scale = self._file.level_downsamples[self._level]
        place = (round(window.left * scale), round(window.top * scale))  # in pixels of level 0
        try:
            return np.asarray(self._file.read_region(place, self._level, size))
        except (self._error, OSError) as error:
            raise ImageError(f"{self.info.name}: it is damaged ({error})") from error

    def close(self) -> None:
        """Close the file."""
        self._pieces = {}
        self._file.close()
