"""RetinaNet on an image of any size, band by band.

The backbone is streamed first, and its maps are kept. Then each level of the pyramid goes through the head by bands of
rows, of which only the best candidates stay. What follows, boxes and the choice among overlapping ones, is the
detector's own. So nothing is found twice, and there is no seam to merge.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import cast

import torch

from vision_longformer.detection.boxes import Detections
from vision_longformer.detection.retinanet import RetinaNet
from vision_longformer.detection.streamed.levels import Levels
from vision_longformer.fpn.pyramid import FeaturePyramid
from vision_longformer.fpn.streamed.backbone import streamed_maps, work_of_backbone
from vision_longformer.images import Reader
from vision_longformer.streaming.bands import BAND_BYTES


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
    progress: Callable[[float], None] | None = None,
) -> Detections:
    """Detect objects in an image of any size. The result is that of `model.detect` on the whole image.

    Missing and fully transparent pixels are padding: nothing sees them, and nothing is found at positions of a level
    that show nothing else.

    Args:
        model: In evaluation mode, with a backbone of this library that can be streamed.
        reader: The image, from `open_reader` or of your own. Nothing is resized.
        mean: Of each channel, in [0, 1], as in training.
        std: Standard deviation of each channel, likewise.
        work_folder: Where the backbone's maps are kept, in files that are removed at the end; by default they are in
            memory.
        band_bytes: What the bands of one block, or of one level, may hold, in bytes; a single (chunk) row may be more.
        band_rows: Chunk rows in a band of the backbone, and rows in a band of a level, in place of `band_bytes`.
        progress: Called after each band with the share of all arithmetic that is done, from 0 to 1.

    Returns:
        Boxes in pixels of the image, best first. The model's limits of candidates and detections hold for the image.

    Raises:
        ValueError: The model cannot be streamed or is in training mode, or a number is out of range.
        ImageError: The image cannot be read.
        WorkFolderError: The work folder cannot be written.
    """
    pyramid = cast(FeaturePyramid, model.backbone)
    size = reader.info.size
    of_backbone = work_of_backbone(pyramid, size)
    levels = Levels(model, size, band_bytes=band_bytes, band_rows=band_rows)
    total = of_backbone + sum(levels.work)
    report: Callable[[float], None] = (lambda done: None) if progress is None else progress
    with streamed_maps(
        pyramid,
        reader,
        mean=mean,
        std=std,
        work_folder=work_folder,
        band_bytes=band_bytes,
        band_rows=band_rows,
        progress=lambda done: report(done / total),
    ) as maps:
        found = levels.run(maps, progress=lambda done: report(min((of_backbone + done) / total, 1.0)))
    return model.objects_of(found, size)
