"""Masks the size of their boxes: a hundred masks the size of a large image would take gigabytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_longformer.masks.rle import Mask, Rle, crop_to_rle, mask_to_rle, rle_to_mask, soft_mask_to_rle

Pixels = tuple[int, int, int, int]


@dataclass(frozen=True)
class BoxMask:
    """A mask somewhere in an image.

    Attributes:
        rle: The mask in the pixels that its box touches, as run lengths.
        corner: (row, column) of its first pixel in the image.
    """

    rle: Rle
    corner: tuple[int, int]

    @classmethod
    def from_probabilities(cls, probabilities: NDArray[np.floating[Any]], box: Sequence[float]) -> BoxMask:
        """Stretch an (m, m) array over a box x1 y1 x2 y2, which must lie within the image."""
        left, top = (int(np.floor(edge)) for edge in box[:2])
        right, bottom = (int(np.ceil(edge)) for edge in box[2:])
        moved = [box[0] - left, box[1] - top, box[2] - left, box[3] - top]
        return cls(soft_mask_to_rle(probabilities, moved, size=(bottom - top, right - left)), (top, left))

    @property
    def pixels(self) -> Pixels:
        """x1 y1 x2 y2 of the pixels that it covers."""
        (top, left), (height, width) = self.corner, self.rle["size"]
        return left, top, left + width, top + height

    def within(self, pixels: Pixels) -> Mask:
        """Return the part of it that lies in x1 y1 x2 y2, as an array of that size."""
        x1, y1, x2, y2 = pixels
        own_x1, own_y1, own_x2, own_y2 = self.pixels
        left, top, right, bottom = max(x1, own_x1), max(y1, own_y1), min(x2, own_x2), min(y2, own_y2)
        part = np.zeros((y2 - y1, x2 - x1), bool)
        if left < right and top < bottom:
            crop = rle_to_mask(self.rle)[top - own_y1 : bottom - own_y1, left - own_x1 : right - own_x1]
            part[top - y1 : bottom - y1, left - x1 : right - x1] = crop
        return part

    def of_image(self, size: tuple[int, int]) -> Rle:
        """Return it as a mask of an image of `size` (height, width)."""
        return crop_to_rle(rle_to_mask(self.rle), corner=self.corner, size=size)


def unite(masks: Sequence[BoxMask]) -> BoxMask:
    """Return one mask of all pixels of several."""
    corners = np.array([mask.pixels for mask in masks])
    x1, y1, x2, y2 = (int(edge) for edge in (*corners[:, :2].min(axis=0), *corners[:, 2:].max(axis=0)))
    whole = np.zeros((y2 - y1, x2 - x1), bool)
    for mask in masks:
        left, top, right, bottom = mask.pixels
        whole[top - y1 : bottom - y1, left - x1 : right - x1] |= rle_to_mask(mask.rle)
    return BoxMask(mask_to_rle(whole), (y1, x1))
