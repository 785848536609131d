"""RetinaNet on an image of any size, band by band.

H×W level, A anchors of a position, K classes

The backbone is streamed first, and its maps are kept. Then each level of the pyramid goes through the head by bands of
rows, of which only the best candidates stay. What follows, boxes and the choice among overlapping ones, is the
detector's own. So nothing is found twice, and there is no seam to merge.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from vision_longformer.attention.band import check_streamable
from vision_longformer.backbone import Block, Stage
from vision_longformer.costs import multiply_adds
from vision_longformer.detection.anchors import rows_of_image
from vision_longformer.detection.boxes import Detections
from vision_longformer.detection.candidates import Candidates, merge
from vision_longformer.detection.features import LongformerFeatures
from vision_longformer.detection.levels import Level
from vision_longformer.detection.pyramid import FeaturePyramid
from vision_longformer.detection.retinanet import Head, RetinaNet
from vision_longformer.readers.base import Reader
from vision_longformer.streaming.bands import BAND_BYTES
from vision_longformer.streaming.head import StreamedHead
from vision_longformer.streaming.maps import StageMap
from vision_longformer.streaming.model import stream
from vision_longformer.streaming.pyramid import StreamedPyramid


@torch.no_grad()
def detect_streamed(
    model: RetinaNet,
    reader: Reader,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    work_folder: str | os.PathLike[str] | None = None,
    band_bytes: int = BAND_BYTES,
    band_rows: int | None = None,
    value_range: tuple[float, float] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Detections:
    """Detect objects in an image of any size. The result is that of `model.detect` on the whole image.

    Missing and fully transparent pixels are padding: nothing sees them, and nothing is found at positions of a level
    that show nothing else.

    Args:
        model: In evaluation mode, with a backbone of this library that can be streamed (see `streamable`).
        reader: The image, from `open_reader` or of your own. Nothing is resized.
        mean: Of each channel, in [0, 1], as in training.
        std: Standard deviation of each channel, likewise.
        work_folder: Where the backbone's maps are kept, in files that are removed at the end; by default they are in
            memory.
        band_bytes: What the bands of one block, or of one level, may hold, in bytes; a single (chunk) row may be more.
        band_rows: Chunk rows in a band of the backbone, and rows in a band of a level, in place of `band_bytes`.
        value_range: Stored values that become 0 and 1 before normalisation, where their type does not say so.
        progress: Called after each band with the share of all arithmetic that is done, from 0 to 1.

    Returns:
        Boxes in pixels of the image, best first. The model's limits of candidates and detections hold for the image.

    Raises:
        ValueError: The model cannot be streamed or is in training mode, or a number is out of range.
        ImageError: The image cannot be read.
        WorkFolderError: The work folder cannot be written.
    """
    _check_streamable(model)
    features = cast(LongformerFeatures, cast(FeaturePyramid, model.backbone).features)
    size = reader.info.height, reader.info.width
    levels = Levels(model, size, band_bytes=band_bytes, band_rows=band_rows)
    of_backbone = multiply_adds(features.model.config, size)
    total = of_backbone + sum(levels.work)
    report: Callable[[float], None] = (lambda done: None) if progress is None else progress
    streamed = stream(
        features.model,
        reader,
        stages=[stage + 1 for stage in features.stages],
        work_folder=work_folder,
        band_bytes=band_bytes,
        band_rows=band_rows,
        mean=mean,
        std=std,
        value_range=value_range,
        progress=lambda step: report(step.fraction * of_backbone / total),
    )
    try:
        found = levels.run(streamed.maps, progress=lambda done: report(min((of_backbone + done) / total, 1.0)))
    finally:
        for stage_map in streamed.maps:
            stage_map.remove()
    return model.objects_of(found, size)


def streamable(model: object) -> bool:
    """Return whether `detect_streamed` takes a model."""
    try:
        _check_streamable(model)
    except ValueError:
        return False
    return True


def _check_streamable(model: object) -> None:
    if not isinstance(model, RetinaNet):
        raise ValueError(f"model: {type(model).__name__} cannot be streamed, RetinaNet can")
    features = cast(FeaturePyramid, model.backbone).features
    if not isinstance(features, LongformerFeatures):
        raise ValueError("model: only a RetinaNet on a backbone of this library can be streamed")
    for number, stage in enumerate(features.model.stages, start=1):
        try:
            check_streamable(cast(Block, cast(Stage, stage).blocks[0]).attn)
        except ValueError as error:
            raise ValueError(f"stage {number}: {error}") from error


class Levels:
    """The levels of a detector's pyramid for one image.

    Args:
        model: A RetinaNet.
        size: (height, width) of the image in pixels.
        band_bytes: What a band may hold.
        band_rows: Rows in a band, in place of `band_bytes`.

    Attributes:
        work: Multiply-adds of each level.
    """

    def __init__(self, model: RetinaNet, size: tuple[int, int], *, band_bytes: int, band_rows: int | None) -> None:
        self.model, self.size = model, size
        self.pyramid = cast(FeaturePyramid, model.backbone)
        self.band_bytes, self.band_rows = band_bytes, band_rows
        config = model.config
        self.anchors: int = model.anchor_generator.num_anchors_per_location()[0]
        outputs = self.anchors * (config.num_classes + 4)
        width, depth = config.head_width, config.head_depth
        inner = 2 * (config.pyramid_width + (depth - 1) * width) * width if depth else 0
        position = 9 * (config.pyramid_width**2 + inner + (width if depth else config.pyramid_width) * outputs)
        self.work = [position * -(-size[0] // stride) * -(-size[1] // stride) for stride in self.pyramid.strides]

    def run(
        self, maps: Sequence[StageMap], *, progress: Callable[[float], None]
    ) -> list[tuple[Candidates, Tensor]]:
        """Return the best candidates of each level, and their (n, 4) anchors.

        Args:
            maps: Of the backbone, finest first.
            progress: Called after each band with the multiply-adds that are done.
        """
        device = next(self.model.parameters()).device
        pyramid, done, levels = StreamedPyramid(self.pyramid, maps, self.size, device=device), 0.0, []
        for level, work in enumerate(self.work):
            height = pyramid.sizes[level][0]

            def count(rows: int, done: float = done, work: float = work, height: int = height) -> None:
                progress(done + work * rows / height)

            levels.append(self._best_of(pyramid, level, count))
            done += work
        return levels

    def _best_of(
        self, pyramid: StreamedPyramid, level: int, count: Callable[[int], None]
    ) -> tuple[Candidates, Tensor]:
        height, width = pyramid.sizes[level]
        classes, real = self.model.config.num_classes, pyramid.real[level]
        head = StreamedHead(cast(Head, self.model.head), height, real)
        step = self._rows_of_band(width)
        found, first = None, 0  # row of the first logits that come next
        for top in range(0, height, step):
            bottom = min(top + step, height)
            logits, offsets = head.push(pyramid.rows(level, top, bottom))
            rows = logits.shape[2]
            if rows:
                if real is not None:
                    logits = logits.masked_fill(~real[first : first + rows], float("-inf"))
                band = Level(self.pyramid.strides[level], ((rows, width),), None)
                new = self.model.choose(
                    rows_of_image(logits, 0, band, width=classes),
                    rows_of_image(offsets, 0, band, width=4),
                    first=first * width * self.anchors * classes,
                )
                found = new if found is None else merge([found, new], self.model.config.candidates)
            first += rows
            count(bottom)
        assert found is not None
        anchors = self.model.anchor_generator.of_places(
            found.places // classes, level=level, stride=self.pyramid.strides[level], width=width, like=found.offsets
        )
        return found, anchors

    def _rows_of_band(self, width: int) -> int:
        if self.band_rows is not None:
            return self.band_rows
        return max(1, self.band_bytes // (width * self.position_bytes()))

    def position_bytes(self) -> int:
        """Return what one position of a band holds at most while it goes through pyramid and head."""
        config, itemsize = self.model.config, next(self.model.parameters()).itemsize
        towers = 2 * config.pyramid_width + 4 * max(config.pyramid_width, config.head_width)
        return itemsize * (towers + 4 * self.anchors * (config.num_classes + 4))
