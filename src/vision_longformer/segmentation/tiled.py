"""The class of every pixel of one image of any size: whole where that fits into memory, else in overlapping tiles."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_longformer.detection.tiled import Report, RgbImage, memory_errors, normalised, rgb_array
from vision_longformer.masks.rle import Mask
from vision_longformer.segmentation.semantic import SemanticFPN
from vision_longformer.tiling.choosing import Tiling

Labels = NDArray[np.uint8] | NDArray[np.uint16]


@torch.no_grad()
def label_pixels(
    model: SemanticFPN,
    image: RgbImage,
    *,
    tiling: Tiling,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | None = None,
    on_tile: Report = lambda done, total: None,
    valid: Mask | None = None,
) -> Labels:
    """Return the (H, W) most probable classes of an image's pixels: uint8, or uint16 if there are more than 256.

    The image is never resized. Of what several tiles show, each pixel is taken from the tile in whose middle it lies
    deepest.

    Args:
        model: In evaluation mode; arguments are those of `detection.tiled.find_objects`.
        image: See there.
        tiling: See there.
        mean: See there.
        std: See there.
        device: See there.
        on_tile: See there.
        valid: (H, W) booleans, false where a pixel is missing: nothing sees it, and its class has no meaning. None
            where none is.

    Raises:
        ImageError: The file cannot be read.
        ValueError: The array is no image, or no tile fits into memory.
        MemoryError: There was less memory than was free before.
    """
    pixels = rgb_array(image)
    size = pixels.shape[0], pixels.shape[1]
    tiles = tiling.cut(size)
    rows = _shares(sorted({(tile.top, tile.bottom) for tile in tiles}))
    columns = _shares(sorted({(tile.left, tile.right) for tile in tiles}))
    labels = np.zeros(size, np.uint8 if model.config.num_classes <= 256 else np.uint16)
    for number, tile in enumerate(tiles):
        there = None if valid is None else valid[tile.top : tile.bottom, tile.left : tile.right]
        masks: dict[str, Tensor] = {}
        if there is not None and not there.all():
            masks = {"valid": torch.from_numpy(there[None].copy()).to(device)}
        if there is None or there.any():
            with memory_errors(tile):
                logits = model.logits(normalised(pixels, tile, mean=mean, std=std, device=device), **masks)
                found = logits.argmax(dim=1)[0].cpu().numpy()  # (height, width) of the tile
        else:
            found = np.zeros(tile.size, np.uint8)
        (top, bottom), (left, right) = rows[tile.top], columns[tile.left]
        labels[top:bottom, left:right] = found[top - tile.top : bottom - tile.top, left - tile.left : right - tile.left]
        on_tile(number + 1, len(tiles))
    return labels


def _shares(ranges: Sequence[tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """Return, by the starts of overlapping ranges, the part of each up to the middle of what it shares."""
    edges = [(end + start) // 2 for (_, end), (start, _) in itertools.pairwise(ranges)]
    starts, ends = [ranges[0][0], *edges], [*edges, ranges[-1][1]]
    return {tile[0]: (start, end) for tile, start, end in zip(ranges, starts, ends, strict=True)}
