"""A `CocoSplit` of objects that are no entries of an annotation file: each has its run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.images import Reading
from vision_longformer.masks.run_lengths import Runs
from vision_longformer.utils.flat import Segmentations, Texts


class ImageObjects(NamedTuple):
    """An image and its n objects.

    Attributes:
        file_name: Relative to the folder of the data.
        size: (height, width) in pixels.
        upright: See `CocoSplit`.
        boxes: (n, 4) x1, y1, x2, y2 in pixels, the tightest.
        areas: (n,) in pixels.
        labels: (n,) classes, from 0.
        runs: Of each object's mask.
    """

    file_name: str
    size: tuple[int, int]
    upright: bool
    boxes: NDArray[np.int64]
    areas: NDArray[np.int64]
    labels: NDArray[np.int64]
    runs: Sequence[Runs]


def split_of(
    images: Sequence[ImageObjects],
    *,
    file: Path,
    folder: Path,
    classes: Sequence[str],
    with_masks: bool,
    skipped: dict[str, int],
    remarks: tuple[str, ...],
    reading: Reading,
) -> CocoSplit:
    """Return what an annotation file with these objects would give. See `CocoSplit` for the arguments."""
    boxes = np.concatenate([entry.boxes for entry in images]).reshape(-1, 4)
    return CocoSplit(
        file=file,
        folder=folder,
        classes=tuple(classes),
        category_ids=np.arange(1, len(classes) + 1),
        image_ids=np.arange(1, len(images) + 1),
        file_names=Texts.of(entry.file_name for entry in images),
        sizes=np.array([entry.size for entry in images], np.int32),
        upright=np.array([entry.upright for entry in images], bool),
        ends=np.cumsum([len(entry.labels) for entry in images], dtype=np.int64),
        annotation_ids=np.arange(1, len(boxes) + 1),
        boxes=boxes.astype(np.float32),
        boxes_xywh=np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).astype(np.float64),
        labels=np.concatenate([entry.labels for entry in images]).astype(np.int64),
        areas=np.concatenate([entry.areas for entry in images]).astype(np.float64),
        is_crowd=np.zeros(len(boxes), bool),
        segmentations=segmentations_of([runs for entry in images for runs in entry.runs]) if with_masks else None,
        skipped=skipped,
        remarks=remarks,
        reading=reading,
    )


def segmentations_of(runs: Sequence[Runs]) -> Segmentations:
    """Return masks as they are kept: many in a few arrays."""
    lengths = np.array([len(own) for own in runs], np.int64)
    return Segmentations(
        ends=np.arange(1, len(runs) + 1),
        is_runs=np.ones(len(runs), bool),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        coordinates=np.zeros(0),
        runs=np.concatenate(runs) if len(runs) else np.zeros(0, np.uint32),
    )
