"""Boxes cut out of a pyramid, and the masks they should show.

R regions, C channels, s side in positions
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align
from torchvision.ops.poolers import LevelMapper

REGIONS_AT_ONCE = 16  # whose masks are turned to numbers at a time: four bytes for every pixel of an image
HALF = 0.5 - 1e-4  # covered: a point just at a half, as is common, must not hang on the last bit of its box


class RegionPool(nn.Module):
    """Sample every region as a square from the level that fits its area.

    torchvision's own pool guesses strides from the sizes of images, and samples half a position off: here strides are
    given, and positions are squares whose values are those of their centres, as in the published code.

    Args:
        strides: Of the levels, powers of 2.
        size: Side s of the squares.
    """

    def __init__(self, strides: Sequence[int], *, size: int) -> None:
        super().__init__()
        self.strides, self.size = tuple(strides), size
        # A box of 224×224 is taken from stride 16, one of twice that side from stride 32, and so on.
        self.level_of = LevelMapper(round(math.log2(strides[0])), round(math.log2(strides[-1])))

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Return (R, C, s, s) from (B, C, H, W) maps, extended at padding, and (regions, 4) boxes of each image."""
        rois = _with_image_numbers(boxes)
        level_of_roi = self.level_of(boxes)
        pooled = rois.new_zeros(len(rois), maps[0].shape[1], self.size, self.size)
        for number, (x, stride) in enumerate(zip(maps, self.strides, strict=True)):
            here = torch.where(level_of_roi == number)[0]
            # never in half precision, in which boxes would be pixels off
            cut = roi_align(x.to(rois.dtype), rois[here], self.size, spatial_scale=1 / stride, aligned=True)
            pooled = pooled.index_copy(0, here, cut)
        return pooled


def _with_image_numbers(boxes: Sequence[Tensor]) -> Tensor:
    numbers = [own.new_full((len(own), 1), number) for number, own in enumerate(boxes)]
    return torch.cat([torch.cat([number, own], dim=1) for number, own in zip(numbers, boxes, strict=True)])


def masks_in_boxes(masks: Tensor, numbers: Tensor, boxes: Tensor, *, size: int) -> Tensor:
    """Return (R, s, s) booleans: the part of a mask that each box shows.

    Args:
        masks: (n, h, w) booleans.
        numbers: (R,) which mask is looked at through each box.
        boxes: (R, 4) corners x1 y1 x2 y2 in pixels.
        size: Side s.
    """
    seen = []
    for chosen, part in zip(numbers.split(REGIONS_AT_ONCE), boxes.split(REGIONS_AT_ONCE), strict=True):
        pixels = masks[chosen, None].to(part.dtype)  # (regions, 1, h, w)
        rois = torch.cat([torch.arange(len(part), device=part.device)[:, None].to(part), part], dim=1)
        seen.append(roi_align(pixels, rois, size, aligned=True)[:, 0] >= HALF)
    return torch.cat(seen)
