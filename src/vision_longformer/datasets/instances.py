"""Objects from label images: one whole number for each object, 0 where there is none (see `datasets.label_files`).

They become what an annotation file of COCO would hold: tight boxes, masks as run lengths, one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.label_files import Pair, find_pairs, fitted, layouts, read_whole_numbers
from vision_longformer.datasets.object_runs import ImageObjects, split_of
from vision_longformer.datasets.problems import Problems
from vision_longformer.images import AS_STORED, MAX_PIXELS, ImageError, Reading
from vision_longformer.masks.label_images import LabelledObjects, objects_of
from vision_longformer.utils.steps import Steps, in_threads

CLASS_NAME = "object"


def reading_instances(
    data: Path,
    split: str,
    *,
    classes: Sequence[str],
    with_masks: bool,
    skip_invalid: bool,
    max_pixels: int = MAX_PIXELS,
    reading: Reading = AS_STORED,
) -> Steps[CocoSplit]:
    """Read the label images of a split.

    Args:
        data: A folder.
        split: "train", "val" or any other there is.
        classes: One name, of all objects.
        with_masks: Keep their masks too.
        skip_invalid: Leave out images whose label is missing, unreadable or of another size.
        max_pixels: Refuse larger labels.
        reading: How the images are to be read.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: An image has no label that fits and `skip_invalid` is false, there is no image, there are several
            classes, or masks tell objects from background alone.
    """
    if len(classes) != 1:
        raise ValueError(f"{data / split}: label images hold objects of one class, and the model has {len(classes)}")
    pairs, remarks = find_pairs(data, split)

    def look(pair: Pair) -> tuple[tuple[int, int], bool, LabelledObjects] | ImageError:
        try:
            return *fitted(pair, reading), _read_objects(pair.labels[0], max_pixels)
        except ImageError as error:
            return error

    results = yield from in_threads("labels read", pairs, look)
    problems = Problems(data / split)
    kept: list[tuple[Pair, tuple[int, int], bool, LabelledObjects]] = []
    for pair, result in zip(pairs, results, strict=True):
        if isinstance(result, ImageError):
            problems.add("image without a label that fits", str(result))
        else:
            kept.append((pair, *result))
    if not skip_invalid:
        problems.raise_any()
    if not kept:
        raise ValueError(f"{data / split}: has no image with a label; expected, in {data}: {layouts(split)}")
    _refuse_binary(kept[0][0].labels[0], [objects for *_, objects in kept])
    images = [
        ImageObjects(
            str(pair.image.relative_to(data)),
            size,
            turned,
            found.boxes,
            found.areas,
            np.zeros(len(found.numbers), np.int64),
            found.runs,
        )
        for pair, size, turned, found in kept
    ]
    return split_of(
        images,
        file=data / split,
        folder=data,
        classes=classes,
        with_masks=with_masks,
        skipped=problems.skipped(),
        remarks=remarks,
        reading=reading,
    )


def _read_objects(path: Path, max_pixels: int) -> LabelledObjects:
    labels = read_whole_numbers(path, max_pixels=max_pixels)
    if labels.dtype.kind == "i" and labels.size and int(labels.min()) < 0:
        raise ImageError(f"{path}: has the value {labels.min()}; objects have numbers from 1 on, and 0 is none")
    return objects_of(labels)


def _refuse_binary(example: Path, objects: Sequence[LabelledObjects]) -> None:
    """Refuse masks of 0 and 255: nobody gives the only object of each image this number."""
    numbers = {int(number) for entry in objects for number in entry.numbers}
    if numbers == {255}:
        raise ValueError(
            f"{example}: this and all other label images hold 0 and 255 alone, so each would be one object; give each "
            "object a number of its own (for objects that do not touch, skimage.measure.label(mask > 0) does), or "
            "learn classes of pixels: task semantic_segmentation with dense.label_values=[0, 255]"
        )
