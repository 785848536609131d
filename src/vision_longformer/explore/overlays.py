"""What is laid over an image on the page: heat maps and classes, at the level of the pyramid that is shown.

h×w pixels of a tile, H×W tokens of the finest stage. A pixel of a level shows the token that its middle lies in.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vision_longformer.explore.tiles import max_level, tile_box
from vision_longformer.images.thumbnails import inferno
from vision_longformer.padding import Size
from vision_longformer.prediction.colours import Colour
from vision_longformer.segmentation.token_grid import Region

MOST_TOKENS = 2**20  # that are computed for one tile; farther out, what was computed of the whole image is needed
REGION_COLOUR: Colour = (86, 180, 233)
Rgba = NDArray[np.uint8]


class FarOutError(ValueError):
    """A tile shows more of the image than is computed for one."""


class Paint(Protocol):
    """Gives the (rows, columns, 4) colours of a region of tokens."""

    def __call__(self, region: Region, /) -> Rgba: ...


def overlay_tile(
    paint: Paint, *, level: int, column: int, row: int, image: Size, tokens: Size, stride: int, any_size: bool = False
) -> bytes:
    """Return a tile of an overlay as PNG.

    Args:
        paint: Gives colours of tokens.
        level: Of the pyramid.
        column: Of tiles.
        row: Of tiles.
        image: (height, width) of the image.
        tokens: (H, W).
        stride: Pixels per token.
        any_size: Whether regions of any size are quickly painted.

    Raises:
        ValueError: There is no such tile.
        FarOutError: It shows too much.
    """
    top, bottom, left, right = tile_box(image, level, column, row)
    factor = 2 ** (max_level(image) - level)
    rows = tokens_of(top, bottom, factor=factor, stride=stride, tokens=tokens[0])
    columns = tokens_of(left, right, factor=factor, stride=stride, tokens=tokens[1])
    region = Region(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    if not any_size and (region.bottom - region.top) * (region.right - region.left) > MOST_TOKENS:
        raise FarOutError("this view is too wide to be computed at once: zoom in, or apply to the whole image")
    colours = paint(region)[(rows - region.top)[:, None], columns - region.left]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(colours)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def tokens_of(start: int, end: int, *, factor: int, stride: int, tokens: int) -> NDArray[np.int64]:
    """Return the token that each pixel from `start` to `end` of a shrunk axis shows."""
    middles = (2 * np.arange(start, end) + 1) * factor // 2  # in pixels of the image
    return np.minimum(middles // stride, tokens - 1)


def class_colours(
    labels: NDArray[np.integer], valid: NDArray[np.bool_], palette: Sequence[Colour], *, hidden: Collection[int] = ()
) -> Rgba:
    """Return labels as colours, transparent where the image has no pixel or the label is hidden."""
    table = np.array([(*colour, 0 if label in hidden else 255) for label, colour in enumerate(palette)], np.uint8)
    colours: Rgba = table[labels]
    colours[~valid] = 0
    return colours


def doubt_colours(margin: NDArray[np.floating], valid: NDArray[np.bool_]) -> Rgba:
    """Return bright colours where two classes are close, transparent where one is certain."""
    doubt = np.exp(-np.maximum(margin, 0))
    return _heat(doubt, np.where(valid, doubt, 0))


def heat_colours(similarity: NDArray[np.floating], *, highest: float) -> Rgba:
    """Return similarities from 0, transparent, to `highest`, bright."""
    with np.errstate(invalid="ignore"):
        share = np.clip(np.nan_to_num(similarity / max(highest, 1e-6)), 0, 1)
    return _heat(share, share)


def region_colours(similarity: NDArray[np.floating], *, threshold: float) -> Rgba:
    """Return one colour where similarities reach a threshold."""
    with np.errstate(invalid="ignore"):
        inside = similarity >= threshold
    colours: Rgba = np.zeros((*similarity.shape, 4), np.uint8)
    colours[inside] = (*REGION_COLOUR, 255)
    return colours


def from_whole(whole: NDArray[np.generic]) -> Callable[[Region], NDArray[np.generic]]:
    """Return what gives regions of what was computed of all (H, W) tokens."""
    return lambda region: whole[region.top : region.bottom, region.left : region.right]


def _heat(values: NDArray[np.floating], opacity: NDArray[np.floating]) -> Rgba:
    colours = inferno(torch.from_numpy(np.ascontiguousarray(values, np.float32))).numpy()
    found: Rgba = np.empty((*values.shape, 4), np.uint8)
    found[..., :3] = np.round(colours * 255)
    found[..., 3] = np.round(np.sqrt(opacity) * 255)
    return found
