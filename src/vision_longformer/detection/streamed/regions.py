"""Boxes cut out of a pyramid that is read by rows.

R regions, C channels, H×W level, s side in positions

What `RegionPool` samples is linear in rows and in columns: every bin is a weighted sum of rows of weighted sums of
columns. So a region is summed up band by band, however high it is, and only bands that show regions are computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vision_longformer.detection.roi_align import RegionPool
from vision_longformer.fpn.streamed.pyramid import StreamedPyramid

POOLED_BYTES = 32 * 2**20  # of all regions that are summed up at a time


class StreamedRegions:
    """Samples regions as squares, as `RegionPool` does.

    Args:
        pyramid: Of the image.
        band_rows: Gives the rows in a band of a level.
    """

    def __init__(self, pyramid: StreamedPyramid, band_rows: Callable[[int], int]) -> None:
        self._pyramid, self._band_rows = pyramid, band_rows

    def pool(self, pool: RegionPool, boxes: Tensor, *, channels: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield numbers of (R, 4) boxes, and their (n, C, s, s) squares, until every box had its turn.

        Args:
            pool: How to sample.
            boxes: In pixels of the image.
            channels: C.
        """
        at_once = max(1, POOLED_BYTES // (channels * pool.size**2 * boxes.itemsize))
        level_of_box = pool.level_of([boxes])
        for level, stride in enumerate(pool.strides):
            here = torch.where(level_of_box == level)[0]
            here = here[boxes[here, 1].argsort()]  # from top to bottom: neighbours share bands
            for numbers in here.split(at_once):
                if len(numbers):
                    pooled = boxes.new_zeros(len(numbers), channels, pool.size, pool.size)
                    self._sum_up(pooled, boxes[numbers] / stride - 0.5, level)
                    yield numbers, pooled

    def _sum_up(self, pooled: Tensor, boxes: Tensor, level: int) -> None:
        """Add what bands of a level show of (n, 4) boxes to (n, C, s, s); they are in positions, of centres."""
        (height, width), side = self._pyramid.sizes[level], pooled.shape[-1]
        columns = [sampling(box[0], box[2], side, width) for box in boxes]
        rows = [sampling(box[1], box[3], side, height) for box in boxes]
        firsts = torch.tensor([first for first, _ in rows])
        ends = torch.tensor([first + weights.shape[1] for first, weights in rows])
        step, top = self._band_rows(level), int(firsts.min())
        while top < int(ends.max()):
            bottom = min(top + step, height)
            shown = torch.where((firsts < bottom) & (ends > top))[0].tolist()
            if not shown:
                top = int(firsts[firsts >= bottom].min())
                continue
            band = self._pyramid.rows(level, top, bottom)[0].to(boxes.dtype)  # (C, n, W)
            for number in shown:
                (first, of_rows), (left, of_columns) = rows[number], columns[number]
                begin, end = max(first, top), min(first + of_rows.shape[1], bottom)
                part = band[:, begin - top : end - top, left : left + of_columns.shape[1]]
                pooled[number] += of_rows[:, begin - first : end - first] @ (part @ of_columns.T)
            top = bottom


def sampling(low: Tensor, high: Tensor, side: int, extent: int) -> tuple[int, Tensor]:
    """Return how `torchvision.ops.roi_align` weighs positions along one axis: the first one, and (s, n) weights.

    Args:
        low: Where the region begins, in positions from the centre of the first.
        high: Where it ends.
        side: Bins s.
        extent: Positions of the axis.
    """
    length = high - low
    points = max(1, math.ceil(float(length / side)))  # in a bin
    steps = torch.arange(side * points, device=low.device, dtype=low.dtype)
    places = low + (steps + 0.5) * (length / (side * points))
    inside = (places >= -1) & (places <= extent)
    places = places.clamp(min=0)
    lower = places.floor().clamp(max=extent - 1)
    share = (places - lower).clamp(max=1) * (lower < extent - 1)  # of the next position
    lower = lower.long()
    upper = (lower + 1).clamp(max=extent - 1)
    first = int(lower.min())
    weights = low.new_zeros(side, int(upper.max()) - first + 1)
    bins = torch.arange(side, device=low.device).repeat_interleave(points)
    weights.index_put_((bins, lower - first), inside * (1 - share) / points, accumulate=True)
    weights.index_put_((bins, upper - first), inside * share / points, accumulate=True)
    return first, weights
