"""RetinaNet's head over a level that arrives by rows.

H×W level, n and m rows, C channels, A anchors of a position, K classes

Each convolution keeps the last two rows that it saw, as the next ones need them: a halo that is never computed twice.
So a row comes out of d convolutions as soon as d rows below it have come in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.detection.retinanet import Head
from vision_longformer.fpn.streamed.pyramid import clean

HALO = 1  # rows that a 3×3 convolution sees above and below


class StreamedHead:
    """Applies the two towers to one level.

    Args:
        head: In evaluation mode.
        height: Of the level.
        real: (H, W) booleans, false where a position is padding; None where all are real.
    """

    def __init__(self, head: Head, height: int, real: Tensor | None) -> None:
        of_classes, of_boxes = head.classification_head, head.regression_head
        self._towers = [
            [RowConvolution(convolution, height, real) for convolution in (*(step[0] for step in tower.conv), last)]
            for tower, last in ((of_classes, of_classes.cls_logits), (of_boxes, of_boxes.bbox_reg))
        ]

    def push(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Take the next (1, C, n, W) rows, and return what is finished: (1, A×K, m, W) logits, (1, A×4, m, W) offsets.

        The last rows finish all that is left.
        """
        logits, offsets = (_run(tower, rows) for tower in self._towers)
        return logits, offsets


def _run(tower: list[RowConvolution], rows: Tensor) -> Tensor:
    for convolution in tower[:-1]:
        rows = F.relu(convolution.push(rows))
    return tower[-1].push(rows)


class RowConvolution:
    """A 3×3 convolution of a map that arrives from top to bottom, with zeros beyond its edges.

    Args:
        convolution: With stride 1 and padding 1.
        height: Of the map.
        real: (H, W) booleans; where false, the convolution sees zeros. None where all are real.
    """

    def __init__(self, convolution: nn.Conv2d, height: int, real: Tensor | None) -> None:
        self._convolution, self._height, self._real = convolution, height, real
        self._kept: Tensor | None = None  # (1, C, at most 2, W), the last rows that came
        self._come = 0

    def push(self, rows: Tensor) -> Tensor:
        """Take the next (1, C, n, W) rows, and return those of the result that they complete, (1, C', m, W)."""
        convolution = self._convolution
        rows = clean(rows, self._real, self._come)
        edge = rows.new_zeros(1, rows.shape[1], HALO, rows.shape[3])
        before = edge if self._kept is None else self._kept
        self._come += rows.shape[2]
        after = [edge] if self._come == self._height and rows.shape[2] else []
        seen = torch.cat([before, rows, *after], dim=2)
        self._kept = seen[:, :, -2 * HALO :].clone()  # a copy, as a view would keep the band
        if seen.shape[2] <= 2 * HALO:
            return rows.new_empty(1, convolution.out_channels, 0, rows.shape[3])
        return F.conv2d(seen, convolution.weight, convolution.bias, padding=(0, HALO))
