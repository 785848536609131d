"""Small pictures of images and maps that are read by rows.

h×w picture, H×W image or map, n rows
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from vision_longformer.features.formats.encoded import MapRows
from vision_longformer.features.formats.view import choose_colours
from vision_longformer.images import Reader, unit_rows
from vision_longformer.images.thumbnails import NEUTRAL, principal_colours

BAND_BYTES = 32 * 2**20  # of what is reduced at once
LARGEST = 4096  # rows of a picture: an image that is higher than wide is reduced more


def small_photograph(reader: Reader, channels: int, *, max_width: int) -> Tensor:
    """Return an image as an (h, w, 3) uint8 picture at most `max_width` wide, gray unless it has three channels."""

    def read(top: int, bottom: int) -> Tensor:
        values, valid = unit_rows(reader, top, bottom, channels)
        colours = values if channels == 3 else values[..., :1].expand(-1, -1, 3)
        return torch.where(valid[..., None], (colours * 255).clamp(0, 255), NEUTRAL)

    size = reader.info.size
    return _reduced(read, size, row_bytes=size[1] * channels * 8, max_width=max_width)


def small_map(features: MapRows, *, max_width: int) -> Tensor:
    """Return the colours of a map as an (h, w, 3) uint8 picture at most `max_width` wide."""
    scale = choose_colours(features)

    def read(top: int, bottom: int) -> Tensor:
        valid = None if features.valid is None else features.valid[top:bottom]
        return principal_colours(features.read(top, bottom), valid, scale).float()

    height, width, channels = features.shape
    return _reduced(read, (height, width), row_bytes=width * (4 * channels + 24), max_width=max_width)


def _reduced(read: Callable[[int, int], Tensor], size: tuple[int, int], *, row_bytes: int, max_width: int) -> Tensor:
    """Average squares of pixels, read as (n, W, 3) rows of values from 0 to 255."""
    side = max(1, -(-size[1] // max_width), -(-size[0] // LARGEST))
    rows = [_squares(read(top, bottom), side) for top, bottom in _bands(size[0], side, row_bytes)]
    return torch.cat(rows)


def _squares(rows: Tensor, side: int) -> Tensor:
    means = F.avg_pool2d(rows.permute(2, 0, 1)[None], side, ceil_mode=True)
    return means[0].permute(1, 2, 0).round().to(torch.uint8)


def _bands(height: int, side: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Give bands of whole squares, the last one aside."""
    step = side * max(1, BAND_BYTES // (side * row_bytes))
    for top in range(0, height, step):
        yield top, min(top + step, height)
