"""Anchor boxes, x1 y1 x2 y2 in pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

from vision_longformer.padding import Size, size_at


class Anchors(AnchorGenerator):  # type: ignore[misc]
    """torchvision's anchors, with three differences.

    Strides are given, where torchvision divides the padded size by that of the map, which changes with the batch.
    An image has anchors on its own map only. Sides are not rounded to whole pixels, as in the published code.

    Args:
        sizes: Sides of square anchors for each level; others have the same area.
        ratios: Height over width.
    """

    def __init__(self, sizes: Sequence[Sequence[float]], ratios: Sequence[float]) -> None:
        super().__init__(tuple(map(tuple, sizes)), (tuple(ratios),) * len(sizes))

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float64,
        device: torch.device | None = None,
    ) -> Tensor:
        """Return (ratios × scales, 4) anchors around the origin."""
        device = device or torch.device("cpu")
        side = torch.tensor(scales, dtype=dtype, device=device)
        stretch = torch.tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        heights, widths = (stretch[:, None] * side).flatten(), (side / stretch[:, None]).flatten()
        return torch.stack([-widths, -heights, widths, heights], dim=1) / 2

    def of_image(self, size: Size, strides: Sequence[int], *, like: Tensor) -> list[Tensor]:
        """Return (H×W×anchors, 4) boxes for each stride of an image of (height, width) `size`, row by row."""
        self.set_cell_anchors(like.dtype, like.device)
        grids = [size_at(size, stride) for stride in strides]
        boxes: list[Tensor] = self.grid_anchors(grids, [(stride, stride) for stride in strides])
        return boxes

    def of_places(self, places: Tensor, *, level: int, stride: int, width: int, like: Tensor) -> Tensor:
        """Return the (n, 4) boxes of some anchors of a map, as `of_image` has them.

        Args:
            places: (n,) their numbers, counted row by row.
            level: Of the map, counted from 0.
            stride: Pixels per position.
            width: Positions in a row of the map.
            like: In whose type and where.
        """
        self.set_cell_anchors(like.dtype, like.device)
        around: Tensor = self.cell_anchors[level]  # (anchors of a position, 4)
        positions = places // len(around)
        corner = torch.stack([positions % width, positions // width], dim=1) * stride  # (n, 2)
        return around[places % len(around)] + corner.repeat(1, 2)


def rows_of_image(x: Tensor, number: int, size: Size, *, width: int) -> Tensor:
    """Return what a (B, anchors×width, H, W) map says of the anchors of image `number`: (H×W×anchors, width).

    The image's own map has (height, width) `size`.

    Never in half precision, in which boxes would be pixels off.
    """
    height, columns = size
    own = x[number, :, :height, :columns]  # (anchors×width, H, W)
    rows: Tensor = own.unflatten(0, (-1, width)).permute(2, 3, 0, 1).reshape(-1, width)
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
