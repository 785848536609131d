"""Mask R-CNN on an image of any size, band by band.

The backbone is streamed first, and its maps are kept. Then bands of each level of the pyramid go through the proposal
network, of which the best candidates stay, over the whole level. The proposals among them are those of a pass over the
whole image. What the heads see of them is summed up over bands that are made again: once for boxes, and once for the
masks of what was found. So nothing is found twice, and there is no seam to merge.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.detection.anchors import rows_of_image
from vision_longformer.detection.boxes import Detections
from vision_longformer.detection.candidates import Candidates, choose, merge
from vision_longformer.detection.mask_rcnn import MaskRCNN
from vision_longformer.detection.retinanet import LEAST_THRESHOLD, PASSING_SHARE
from vision_longformer.detection.streamed.regions import POOLED_BYTES, StreamedRegions
from vision_longformer.fpn.streamed.backbone import streamed_maps, work_of_backbone
from vision_longformer.fpn.streamed.pyramid import StreamedPyramid, clean, convolved
from vision_longformer.images import Reader
from vision_longformer.padding import Size, size_at
from vision_longformer.streaming.bands import BAND_BYTES

CLOSE = 0.99  # to the threshold of scores
REGIONS = 64  # that go through the heads at once
HALO = 4  # rows of the finest level that are computed beside those of a band
OF_LEVELS = 4  # bands of a level hold so many times what those of a block may


@torch.no_grad()
def detect_masks_streamed(
    model: MaskRCNN,
    reader: Reader,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    work_folder: str | os.PathLike[str] | None = None,
    band_bytes: int = BAND_BYTES,
    band_rows: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Detections:
    """Detect and outline objects in an image of any size. The result is that of `model.detect` on the whole image.

    Missing and fully transparent pixels are padding: nothing sees them, and nothing is proposed at positions of a level
    that show nothing else. Of proposals whose logits are equal to the last bit, another one may be taken.

    Args:
        model: In evaluation mode, with a backbone of this library that can be streamed.
        reader: The image, from `open_reader` or of your own. Nothing is resized.
        mean: Of each channel, in [0, 1], as in training.
        std: Standard deviation of each channel, likewise.
        work_folder: Where the backbone's maps are kept, in files that are removed at the end; by default they are in
            memory.
        band_bytes: What the bands of one block may hold, in bytes, and those of a level four times as much; a single
            (chunk) row may be more.
        band_rows: Chunk rows in a band of the backbone, and rows in a band of a level, in place of `band_bytes`.
        progress: Called after each band with the share of all arithmetic that is done, from 0 to 1.

    Returns:
        Boxes in pixels of the image, best first. The model's limits of proposals and detections hold for the image.

    Raises:
        ValueError: The model cannot be streamed or is in training mode, or a number is out of range.
        ImageError: The image cannot be read.
        WorkFolderError: The work folder cannot be written.
    """
    size = reader.info.size
    bands = LevelBands(model, size, band_bytes=band_bytes, band_rows=band_rows)
    of_backbone = work_of_backbone(model.backbone, size)
    total = of_backbone + 3 * bands.work  # proposals, boxes, masks
    report: Callable[[float], None] = (lambda done: None) if progress is None else progress
    with streamed_maps(
        model.backbone,
        reader,
        mean=mean,
        std=std,
        work_folder=work_folder,
        band_bytes=band_bytes,
        band_rows=band_rows,
        progress=lambda done: report(done / total),
    ) as maps:
        pyramid = StreamedPyramid(model.backbone, maps, size, device=next(model.parameters()).device)
        detector = _Detector(model, pyramid, size, bands)
        return detector.run(lambda share: report((of_backbone + share * (total - of_backbone)) / total))


class LevelBands:
    """Bands of each level of the pyramid of Mask R-CNN.

    Args:
        model: The model.
        size: (height, width) of the image in pixels.
        band_bytes: What a band of a block may hold.
        band_rows: Rows of a level in a band, in place of `band_bytes`.

    Attributes:
        work: Multiply-adds of the proposal network; each step of the heads makes the levels again where it looks.
        bytes: What is held at most beside the backbone's maps.
    """

    def __init__(self, model: MaskRCNN, size: Size, *, band_bytes: int, band_rows: int | None) -> None:
        self._model, self._band_bytes, self._band_rows = model, OF_LEVELS * band_bytes, band_rows
        self.sizes = [size_at(size, stride) for stride in model.backbone.strides]
        position = 2 * 9 * model.config.pyramid_width**2
        self.work = float(position * sum(height * width for height, width in self.sizes))

    @property
    def bytes(self) -> int:
        """What is held at most beside the backbone's maps."""
        height, width = self.sizes[0]
        rows = min(self.rows(0) + HALO, height + HALO)
        return rows * width * self._position_bytes() + self._region_bytes()

    def rows(self, level: int) -> int:
        """Return the rows in a band of a level."""
        if self._band_rows is not None:
            return self._band_rows
        width = self.sizes[level][1]
        return max(1, self._band_bytes // (width * self._position_bytes()) - HALO)

    def _position_bytes(self) -> int:
        """Return what one position holds at most: what convolutions read and write, each with a copy, and scores."""
        anchors: int = self._model.rpn.head.cls_logits.out_channels
        return 4 * (5 * self._model.config.pyramid_width + 4 * 5 * anchors)

    def _region_bytes(self) -> int:
        """Return what regions, the heads on `REGIONS` of them, and what is known of all proposals hold."""
        config = self._model.config
        widest = 3 * max(config.pyramid_width, config.head_width) + 4 * (2 * config.head_width + config.num_classes)
        heads = 4 * REGIONS * max(3 * config.pyramid_width * config.box_size**2, widest * config.mask_size**2)
        passing = PASSING_SHARE if config.score_threshold >= LEAST_THRESHOLD else 1.0
        of_proposals = round(4 * config.proposals * (20 + passing * 50 * (config.num_classes + 1)))
        of_candidates = 100 * config.proposal_candidates[1] * len(self.sizes)
        of_masks = 4 * config.detections * 3 * (2 * config.mask_size) ** 2
        return POOLED_BYTES + heads + of_proposals + of_candidates + of_masks


class _Detector:
    """Looks at one image."""

    def __init__(self, model: MaskRCNN, pyramid: StreamedPyramid, size: Size, bands: LevelBands) -> None:
        self.model, self.pyramid, self.size, self.bands = model, pyramid, size, bands
        self._regions = StreamedRegions(pyramid, bands.rows)

    def run(self, report: Callable[[float], None]) -> Detections:
        heads, size = self.model.roi_heads, self.size
        proposals = self._propose(lambda share: report(share / 3))
        parts = []
        for numbers, pooled in self._pooled(heads.box_roi_pool, proposals, lambda share: report((1 + share) / 3)):
            logits, offsets = heads.classify(pooled)
            # Of most proposals no class passes. What is close is kept, as rounding is another one in the whole pass.
            passing = logits.softmax(dim=1)[:, 1:].amax(dim=1) > CLOSE * heads.score_thresh
            parts.append((numbers[passing], logits[passing], offsets[passing]))
        numbers, logits, offsets = (torch.cat(part) for part in zip(*parts, strict=True))
        order = numbers.argsort()
        found = heads.objects_of(logits[order], offsets[order], proposals[numbers[order]], size)
        side = 2 * self.model.config.mask_size  # the mask head doubles it
        masks = found.boxes.new_zeros(len(found.boxes), side, side)
        for numbers, pooled in self._pooled(heads.mask_roi_pool, found.boxes, lambda share: report((2 + share) / 3)):
            masks[numbers] = heads.draw(pooled, found.labels[numbers]).sigmoid()
        report(1.0)
        return Detections(found.boxes, found.scores, found.labels, masks, found.left_out)

    def _pooled(self, pool: Any, boxes: Tensor, report: Callable[[float], None]) -> Any:
        done = 0
        for numbers, pooled in self._regions.pool(pool, boxes, channels=self.model.config.pyramid_width):
            yield from zip(numbers.split(REGIONS), pooled.split(REGIONS), strict=True)
            done += len(numbers)
            report(done / len(boxes))

    def _propose(self, report: Callable[[float], None]) -> Tensor:
        """Return (proposals, 4) boxes, best first."""
        rpn, found, done = self.model.rpn, [], 0
        total = sum(height * width for height, width in self.pyramid.sizes)
        for level, (height, width) in enumerate(self.pyramid.sizes):
            best: Candidates | None = None
            step = self.bands.rows(level)
            for top in range(0, height, step):
                bottom = min(top + step, height)
                band = self._candidates(level, top, bottom)
                best = band if best is None else merge([best, band], rpn.pre_nms_top_n())
                done += (bottom - top) * width
                report(done / total)
            assert best is not None
            stride = self.model.backbone.strides[level]
            anchors = rpn.anchor_generator.of_places(
                best.places, level=level, stride=stride, width=width, like=best.offsets
            )
            found.append((best, anchors))
        boxes = torch.cat([rpn.box_coder.decode_single(best.offsets, anchors) for best, anchors in found])
        logits = torch.cat([best.logits for best, _ in found])
        counts = [len(best.logits) for best, _ in found]
        proposals, _ = rpn.filter_proposals(boxes[None], logits[None], [self.size], counts)
        return cast(Tensor, proposals[0])

    def _candidates(self, level: int, top: int, bottom: int) -> Candidates:
        """Return the best candidates of rows of a level."""
        rpn, real = self.model.rpn, self.pyramid.real[level]
        ((convolution, _),) = rpn.head.conv

        def before(first: int, last: int) -> Tensor:
            return clean(self.pyramid.rows(level, first, last), real, first)

        height, width = self.pyramid.sizes[level]
        x = F.relu(convolved(before, cast(nn.Conv2d, convolution), top, bottom, height=height))
        logits, offsets = rpn.head.cls_logits(x), rpn.head.bbox_pred(x)
        if real is not None:
            logits = logits.masked_fill(~real[top:bottom], float("-inf"))
        size = (bottom - top, width)
        anchors: int = logits.shape[1]
        return choose(
            rows_of_image(logits, 0, size, width=1),
            rows_of_image(offsets, 0, size, width=4),
            first=top * width * anchors,
            threshold=0.0,
            limit=rpn.pre_nms_top_n(),
        )
