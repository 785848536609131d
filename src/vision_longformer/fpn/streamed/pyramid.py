"""A feature pyramid over stage maps that are read by rows.

H×W map, n rows, C channels

Any rows of any level can be asked for. What lies around them is computed anew for each question: only 1×1 convolutions
below the last 3×3 one, which costs little. Zeros lie beyond the edges of a level, never beyond those of a band.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.fpn.pyramid import FeaturePyramid
from vision_longformer.padding import Size, size_at
from vision_longformer.streaming.maps import StageMap


class StreamedPyramid:
    """The levels of `FeaturePyramid`, by rows.

    Args:
        pyramid: In evaluation mode.
        maps: Of its backbone, finest first.
        image_size: (height, width) in pixels.
        device: Where the model is.

    Attributes:
        sizes: (height, width) of each level.
        real: For each level, (H, W) booleans, false where all pixels of a position are missing; None where none are.
    """

    def __init__(
        self, pyramid: FeaturePyramid, maps: Sequence[StageMap], image_size: Size, *, device: torch.device
    ) -> None:
        self._maps, self._device = maps, device
        self._lateral = [_convolution(block) for block in pyramid.fpn.inner_blocks]
        self._output = [_convolution(block) for block in pyramid.fpn.layer_blocks]
        self._extra = pyramid.extra
        self.sizes = [size_at(image_size, stride) for stride in pyramid.strides]
        self.real: list[Tensor | None] = [None if x.valid is None else x.valid.to(device) for x in maps]
        for _ in range(len(self.sizes) - len(maps)):
            self.real.append(_coarser(self.real[-1]))

    def rows(self, level: int, top: int, bottom: int) -> Tensor:
        """Return rows `top` to `bottom` of a level, counted from 0, as (1, C, n, W); without meaning where not real."""
        last = len(self._maps) - 1
        if level <= last:
            return self._around(self._merged, level, self._output[level], top, bottom)
        if self._extra is None:  # every second position
            return self.rows(last, 2 * top, 2 * bottom - 1)[:, :, ::2, ::2]
        if level == last + 1:
            return self._around(self._read, last, self._extra.p6, top, bottom)
        return self._around(self._activated, last + 1, self._extra.p7, top, bottom)

    def _read(self, level: int, top: int, bottom: int) -> Tensor:
        rows = self._maps[level].read(top, bottom).permute(2, 0, 1)[None]  # (1, C, n, W)
        return clean(rows, self.real[level], top)

    def _merged(self, level: int, top: int, bottom: int) -> Tensor:
        """Return rows of a level before its output convolution."""
        rows: Tensor = self._lateral[level](self._read(level, top, bottom))
        if level + 1 < len(self._maps):
            first = top // 2
            coarser = self._merged(level + 1, first, -(-bottom // 2))
            doubled = F.interpolate(coarser, scale_factor=2, mode="nearest")
            rows = rows + doubled[:, :, top - 2 * first : bottom - 2 * first, : rows.shape[3]]
        return clean(rows, self.real[level], top)

    def _activated(self, level: int, top: int, bottom: int) -> Tensor:
        return clean(F.relu(self.rows(level, top, bottom)), self.real[level], top)

    def _around(
        self, take: Callable[[int, int, int], Tensor], level: int, convolution: nn.Conv2d, top: int, bottom: int
    ) -> Tensor:
        """Return rows of a 3×3 convolution with stride 1 or 2 over what `take` gives of a level."""
        return convolved(
            lambda first, last: take(level, first, last), convolution, top, bottom, height=self.sizes[level][0]
        )


def convolved(
    take: Callable[[int, int], Tensor], convolution: nn.Conv2d, top: int, bottom: int, *, height: int
) -> Tensor:
    """Return rows `top` to `bottom` of what a 3×3 convolution with stride 1 or 2 makes of a map.

    Args:
        take: Gives (1, C, n, W) rows of the map, zero where it is not real, from one number to another.
        convolution: With padding 1.
        top: First row that is wanted.
        bottom: One past the last.
        height: Of the map; beyond it lie zeros.
    """
    step = convolution.stride[0]
    first, last = step * top - 1, step * (bottom - 1) + 2
    rows = take(max(first, 0), min(last, height))
    rows = F.pad(rows, (1, 1, max(-first, 0), max(last - height, 0)))
    return F.conv2d(rows, convolution.weight, convolution.bias, stride=step)


def clean(rows: Tensor, real: Tensor | None, top: int) -> Tensor:
    """Return (1, C, n, W) rows with zeros where a level is not real.

    Args:
        rows: Of the level.
        real: (H, W) booleans for the whole level; None where all is real.
        top: Number of the first of the rows.
    """
    return rows if real is None else torch.where(real[top : top + rows.shape[2]], rows, 0)


def _coarser(real: Tensor | None) -> Tensor | None:
    """Return what is real at half the resolution: whatever holds something real."""
    if real is None:
        return None
    return F.max_pool2d(real[None].float(), kernel_size=2, ceil_mode=True)[0] > 0


def _convolution(block: nn.Module) -> nn.Conv2d:
    """Return the one convolution of a block of torchvision's."""
    (convolution,) = (module for module in block.modules() if isinstance(module, nn.Conv2d))
    return convolution
