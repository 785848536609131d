"""The semantic head over a pyramid that is read by rows.

H×W map, n rows, C channels, K classes; level l of the pyramid has l doublings to the finest one

Any rows can be asked for, once the statistics of every norm are known: what lies around them is computed anew for each
question. A norm's statistics are those of the whole map, and need the norms before it. So they are gathered in passes
over bands, one for each norm, before the first logits: they change nothing, but take about as long as the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.fpn.streamed.pyramid import StreamedPyramid, clean, convolved
from vision_longformer.padding import Size
from vision_longformer.segmentation.norm import RealGroupNorm
from vision_longformer.segmentation.semantic import Branch, SemanticFPN, enlarge
from vision_longformer.segmentation.streamed.moments import Moments

Bands = Callable[[int], Iterator[tuple[int, int]]]  # gives (top, bottom) of each band of a level


class StreamedHead:
    """Logits of an image, by rows.

    Args:
        model: In evaluation mode.
        pyramid: Of the image.
        size: (height, width) of the image in pixels.
    """

    def __init__(self, model: SemanticFPN, pyramid: StreamedPyramid, size: Size) -> None:
        self.model, self.pyramid, self.size = model, pyramid, size
        self._branches = [cast(Branch, branch) for branch in model.branches]
        self._affine: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}  # by level and step

    def gather(self, bands: Bands, *, on_band: Callable[[int, int, int], None]) -> None:
        """Gather the statistics of all norms.

        Args:
            bands: Of a level.
            on_band: Called after each band with its level, the step of its branch, and one past its last row.
        """
        for level, branch in enumerate(self._branches):
            for step, norm in enumerate(cast(list[RealGroupNorm], list(branch.norms))):
                at, moments = level - step, Moments(norm.num_groups, like=norm.weight)
                real = self.pyramid.real[at]
                for top, bottom in bands(at):
                    moments.add(self._convolved(level, step, top, bottom), None if real is None else real[top:bottom])
                    on_band(level, step, bottom)
                self._affine[level, step] = moments.affine(norm)

    def logits(self, top: int, bottom: int) -> Tensor:
        """Return (K, n, W) logits of rows `top` to `bottom` of the image's pixels; without meaning where missing."""
        logits = self._enlarged(self._classified, 0, self.model.config.strides[0], top, bottom, width=self.size[1])[0]
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def _classified(self, top: int, bottom: int) -> Tensor:
        """Return (1, K, n, W) logits of rows of the finest level."""
        total = sum(self._branch(level, level or 1, top, bottom) for level in range(len(self._branches)))
        return cast(Tensor, self.model.predictor(total))

    def _branch(self, level: int, steps: int, top: int, bottom: int) -> Tensor:
        """Return rows of what a level has become after some steps of its branch."""
        if level == 0:
            return self._normalised(level, 0, top, bottom)

        def before(first: int, last: int) -> Tensor:
            return self._normalised(level, steps - 1, first, last)

        width = self.pyramid.sizes[level - steps][1]
        return self._enlarged(before, level - steps + 1, 2, top, bottom, width=width)

    def _normalised(self, level: int, step: int, top: int, bottom: int) -> Tensor:
        factor, summand = self._affine[level, step]
        return F.relu(self._convolved(level, step, top, bottom).mul_(factor).add_(summand), inplace=True)

    def _convolved(self, level: int, step: int, top: int, bottom: int) -> Tensor:
        """Return rows of what a convolution of a branch gives, (1, C, n, W)."""
        at = level - step

        def before(first: int, last: int) -> Tensor:
            rows = self._branch(level, step, first, last) if step else self.pyramid.rows(level, first, last)
            return clean(rows, self.pyramid.real[at], first)

        convolution = cast(nn.Conv2d, self._branches[level].convolutions[step])
        return convolved(before, convolution, top, bottom, height=self.pyramid.sizes[at][0])

    def _enlarged(
        self, take: Callable[[int, int], Tensor], level: int, factor: int, top: int, bottom: int, *, width: int
    ) -> Tensor:
        """Return rows `top` to `bottom` of what `take` gives of a level, enlarged."""
        first = max((2 * top + 1 - factor) // (2 * factor), 0)
        last = min((2 * bottom - 1 - factor) // (2 * factor) + 2, self.pyramid.sizes[level][0])
        real = self.pyramid.real[level]
        valid = None if real is None else real[None, first:last]
        large = enlarge(take(first, last), factor, valid, size=((last - first) * factor, width))
        return large[:, :, top - first * factor : bottom - first * factor]
