"""COCO's JSON: results.json with all objects of a run, and images.json with its images and categories.

Coordinates are pixels of full resolution, also where images were read at another scale.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_longformer.masks.rle import Rle, crop_to_rle
from vision_longformer.prediction.results import ObjectsResult
from vision_longformer.utils.atomic_files import replacing


def coco_entries(result: ObjectsResult, image_id: int) -> Iterator[dict[str, Any]]:
    """Yield objects as COCO's results have them; the category of class number k is k + 1."""
    objects, (down, across) = result.objects, result.image.downsample
    for place, (x1, y1, x2, y2) in enumerate((np.asarray(objects.boxes) * [across, down, across, down]).tolist()):
        entry: dict[str, Any] = {
            "image_id": image_id,
            "category_id": int(objects.labels[place]) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": float(objects.scores[place]),
        }
        if objects.masks is not None:
            whole = (down, across) == (1.0, 1.0)
            entry["segmentation"] = objects.masks[place] if whole else _at_full_resolution(result, place)
        yield entry


def _at_full_resolution(result: ObjectsResult, number: int) -> Rle:
    """Return the mask of an object in pixels of full resolution, each of which is that under its centre."""
    (mask, corner), image = result.crops[number], result.image
    size = image.full_size or image.size
    (top, rows), (left, columns) = map(_under, corner, mask.shape, image.downsample, size)
    return crop_to_rle(mask[rows[:, None], columns], corner=(top, left), size=size)


def _under(start: int, count: int, factor: float, size: int) -> tuple[int, NDArray[np.int64]]:
    """Return the first pixel of full resolution whose centre lies in `count` larger ones; and theirs, from 0, of each.

    Args:
        start: The first of the larger pixels.
        count: How many there are.
        factor: By how much they are larger.
        size: Pixels of full resolution.
    """
    places = np.arange(int(start * factor), min(size, math.ceil((start + count) * factor)))
    own = ((places + 0.5) / factor).astype(np.int64) - start
    inside = (own >= 0) & (own < count)
    return (int(places[inside][0]) if inside.any() else 0), own[inside]


def write_coco(path: Path, result: ObjectsResult) -> None:
    """Write the objects of one image as a list of COCO's results."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(_listed(coco_entries(result, 1)))


def write_coco_run(folder: Path, results: Iterable[tuple[int, str, ObjectsResult]], class_names: Iterable[str]) -> None:
    """Write results.json and images.json; only one image's objects are in memory.

    Args:
        folder: Where.
        results: Each with the number and the path of its image.
        class_names: Of the model.

    Raises:
        OSError: They cannot be written; those that were there are as they were.
    """
    images: list[dict[str, Any]] = []

    def entries() -> Iterator[dict[str, Any]]:
        for number, path, result in results:
            height, width = result.image.full_size or result.image.size
            about: dict[str, Any] = {"id": number, "file_name": path, "width": width, "height": height}
            if result.image.pixel_size is not None:
                sides = zip(result.image.pixel_size, result.image.downsample, strict=True)
                about["pixel_size_um"] = [side / factor for side, factor in sides]  # height, width
            images.append(about | {"left_out": result.objects.left_out})
            yield from coco_entries(result, number)

    with replacing(folder / "results.json") as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(_listed(entries()))
    categories = [{"id": number, "name": name} for number, name in enumerate(class_names, start=1)]
    with replacing(folder / "images.json") as temporary:
        temporary.write_text(json.dumps({"images": images, "categories": categories}, indent=2) + "\n", "utf-8")


def _listed(entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the text of a JSON list."""
    separator = "["
    for entry in entries:
        yield f"{separator}{json.dumps(entry)}"
        separator = ",\n "
    yield "[]\n" if separator == "[" else "]\n"
