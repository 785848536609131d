"""Tiles of an image for a page: a pyramid as Deep Zoom has it, made from the image's rows when it is asked for.

H×W image, n rows. Level L of the pyramid is the image shrunk by 2 to the power of `max_level` − L, sides rounded up.
"""

from __future__ import annotations

import io
import math
import threading

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from vision_longformer.images import Reader, unit_rows
from vision_longformer.images.thumbnails import NEUTRAL
from vision_longformer.padding import Size
from vision_longformer.segmentation.token_grid import Cache

SIDE = 256  # pixels of a tile
SMALL = 2048  # pixels of the longer side of levels that are kept once they were made
CACHE_BYTES = 192 * 2**20
QUALITY = 88

Pixels = NDArray[np.uint8]


def max_level(size: Size) -> int:
    """Return the level that shows an image of (height, width) `size` as it is; level 0 has a single pixel."""
    return math.ceil(math.log2(max(size))) if max(size) > 1 else 0


def level_size(size: Size, level: int) -> Size:
    """Return (height, width) of a level."""
    factor = 2 ** (max_level(size) - level)
    return -(-size[0] // factor), -(-size[1] // factor)


def tile_box(size: Size, level: int, column: int, row: int) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of a tile in pixels of its level.

    Raises:
        ValueError: There is no such tile.
    """
    if not 0 <= level <= max_level(size):
        raise ValueError(f"level={level}: must be from 0 to {max_level(size)}")
    height, width = level_size(size, level)
    if row < 0 or column < 0 or row * SIDE >= height or column * SIDE >= width:
        raise ValueError(f"tile {column}, {row}: level {level} has {width}×{height} pixels")
    return row * SIDE, min((row + 1) * SIDE, height), column * SIDE, min((column + 1) * SIDE, width)


class ImageTiles:
    """Tiles of an image that is open; threads may share it.

    Args:
        reader: The image.
        channels: That it is read with; its first one is shown in gray unless there are three.
    """

    def __init__(self, reader: Reader, channels: int) -> None:
        self.size: Size = reader.info.size
        self._reader, self._channels = reader, channels
        self._small: dict[tuple[int, int], Pixels] = {}
        self._cache = Cache(CACHE_BYTES)
        self._lock = threading.Lock()

    def tile(self, level: int, column: int, row: int) -> bytes:
        """Return a tile as JPEG.

        Raises:
            ValueError: There is no such tile.
            ImageError: The image cannot be read.
        """
        _, _, left, right = tile_box(self.size, level, column, row)
        with self._lock:
            strip = self._strip(level, row)
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(strip[:, left:right])).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
        return buffer.getvalue()

    def _strip(self, level: int, row: int) -> Pixels:
        """Return a row of tiles: (n, width of the level, 3)."""
        if max(level_size(self.size, level)) > SMALL:
            return self._cache.get((level, row), lambda: self._make(level, row))
        if (level, row) not in self._small:
            self._small[level, row] = self._make(level, row)
        return self._small[level, row]

    def _make(self, level: int, row: int) -> Pixels:
        top, bottom = row * SIDE, min((row + 1) * SIDE, level_size(self.size, level)[0])
        if level == max_level(self.size):
            return self._read(top, bottom)
        below = level_size(self.size, level + 1)[0]
        finer = [self._strip(level + 1, number) for number in (2 * row, 2 * row + 1) if number * SIDE < below]
        return _halved(np.concatenate(finer))

    def _read(self, top: int, bottom: int) -> Pixels:
        values, valid = unit_rows(self._reader, top, bottom, self._channels)
        colours = values if self._channels == 3 else values[..., :1].expand(-1, -1, 3)
        shown = torch.where(valid[..., None], (colours * 255).clamp(0, 255), NEUTRAL)
        pixels: Pixels = shown.round().to(torch.uint8).numpy()
        return pixels


def _halved(pixels: Pixels) -> Pixels:
    """Average squares of four pixels, fewer at the right and lower edges."""
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    means = F.avg_pool2d(planes, 2, ceil_mode=True)[0].permute(1, 2, 0)
    found: Pixels = means.round().to(torch.uint8).contiguous().numpy()
    return found
