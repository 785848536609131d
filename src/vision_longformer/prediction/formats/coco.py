"""COCO's JSON: results.json with all objects of a run, and images.json with its images and categories."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.prediction.results import ObjectsResult
from vision_longformer.utils.atomic_files import replacing


def coco_entries(objects: FoundObjects, image_id: int) -> Iterator[dict[str, Any]]:
    """Yield objects as COCO's results have them; the category of class number k is k + 1."""
    for place, (x1, y1, x2, y2) in enumerate(objects.boxes.tolist()):
        entry: dict[str, Any] = {
            "image_id": image_id,
            "category_id": int(objects.labels[place]) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": float(objects.scores[place]),
        }
        if objects.masks is not None:
            entry["segmentation"] = objects.masks[place]
        yield entry


def write_coco(path: Path, result: ObjectsResult) -> None:
    """Write the objects of one image as a list of COCO's results."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(_listed(coco_entries(result.objects, 1)))


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
            height, width = result.image.size
            about = {"id": number, "file_name": path, "width": width, "height": height}
            images.append(about | {"left_out": result.objects.left_out})
            yield from coco_entries(result.objects, number)

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
