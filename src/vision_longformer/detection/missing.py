"""What is found where an image has no pixels: no object."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.images import Reader, unit_rows
from vision_longformer.masks.rle import Mask, rle_to_mask

LEAST_SHARE = 0.5  # of an object's pixels that an image must have
ROWS = 64  # that are read again at once


def where_pixels_are(objects: FoundObjects, valid: Mask | None) -> FoundObjects:
    """Return the objects of which the image has at least half of the pixels: of the mask, or else of the box.

    Args:
        objects: In the pixels of the image.
        valid: (H, W), where the image has pixels; None where it has all.
    """
    if valid is None:
        return objects
    shares = np.zeros(len(objects.boxes))
    for place, (left, top, right, bottom) in enumerate(_pixels_of(objects, valid.shape).tolist()):
        there = valid[top:bottom, left:right]
        if objects.masks is not None:
            there = there[rle_to_mask(objects.masks[place])[top:bottom, left:right]]
        shares[place] = there.mean() if there.size else 0
    return _kept(objects, shares)


def where_rows_are(objects: FoundObjects, reader: Reader, channels: int) -> FoundObjects:
    """Do what `where_pixels_are` does with objects without masks, by rows: those with objects are read again.

    Args:
        objects: In the pixels of the image.
        reader: The image, which may be larger than memory.
        channels: Of the model.

    Raises:
        ImageError: The image cannot be read.
    """
    boxes = _pixels_of(objects, reader.info.size)
    left, top, right, bottom = boxes.T
    found = np.zeros(len(boxes), np.int64)  # pixels of a box that the image has
    for first in range(0, reader.info.height, ROWS):
        last = min(first + ROWS, reader.info.height)
        places = np.flatnonzero((top < last) & (bottom > first))
        if not len(places):
            continue
        valid = unit_rows(reader, first, last, channels)[1].numpy()
        for place in places.tolist():
            rows = slice(max(top[place] - first, 0), bottom[place] - first)
            found[place] += np.count_nonzero(valid[rows, left[place] : right[place]])
    return _kept(objects, found / np.maximum((right - left) * (bottom - top), 1))


def _pixels_of(objects: FoundObjects, size: tuple[int, ...]) -> NDArray[np.int64]:
    """Return (n, 4) x1, y1, x2, y2 of whole pixels inside an image of (height, width) `size` that boxes touch."""
    boxes = np.asarray(objects.boxes, np.float64).reshape(-1, 4)
    outer = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1)
    return outer.clip(0, (size[1], size[0]) * 2).astype(np.int64)


def _kept(objects: FoundObjects, shares: NDArray[np.float64]) -> FoundObjects:
    kept = np.flatnonzero(shares >= LEAST_SHARE)
    if len(kept) == len(shares):
        return objects
    masks = None if objects.masks is None else [objects.masks[place] for place in kept.tolist()]
    arrays = {name: getattr(objects, name)[kept] for name in ("boxes", "scores", "labels")}
    return replace(objects, masks=masks, **arrays)
