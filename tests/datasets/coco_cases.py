"""Small COCO sets that tests write: random boxes, polygons and run lengths on images of noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vision_longformer.masks.rle import mask_to_rle

CATEGORY_IDS = (2, 7, 90)
CLASSES = ("cell", "leaf", "unused")
SIZES = ((37, 53), (41, 29), (23, 61))  # (height, width)


def random_annotation(
    generator: np.random.Generator, number: int, image: dict[str, Any], *, kinds: tuple[str, ...]
) -> dict[str, Any]:
    """Return an annotation whose segmentation is of one of `kinds`: polygons, runs, compressed, crowd."""
    height, width = image["height"], image["width"]
    w, h = generator.integers(4, width // 2), generator.integers(4, height // 2)
    x, y = generator.integers(0, width - w), generator.integers(0, height - h)
    kind = kinds[number % len(kinds)]
    mask = np.zeros((height, width), bool)
    mask[y : y + h, x : x + w] = generator.random((h, w)) < 0.8
    segmentation: Any
    if kind == "polygons":
        cut = x + w / 2
        left = [x, y, cut, y + 0.3, cut - 0.5, y + h - 1, x + 0.1, y + h]
        right = [cut, y, x + w, y + 1, x + w - 1, y + h]
        segmentation = [[float(value) for value in polygon] for polygon in (left, right)]
    elif kind in ("runs", "crowd"):
        pixels = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(pixels)) + 1
        counts = np.diff([0, *edges.tolist(), pixels.size]).tolist()
        segmentation = {"size": [height, width], "counts": [0, *counts] if pixels[0] else counts}
    else:
        segmentation = dict(mask_to_rle(mask))
    return {
        "id": 100 + number,
        "image_id": image["id"],
        "category_id": CATEGORY_IDS[int(generator.integers(2))],
        "bbox": [float(x), float(y), float(w), float(h)],
        "area": float(mask.sum()),
        "iscrowd": int(kind == "crowd"),
        "segmentation": segmentation,
    }


def random_content(
    *,
    seed: int = 0,
    images: int = 3,
    per_image: int = 4,
    kinds: tuple[str, ...] = ("polygons", "runs", "compressed", "crowd"),
) -> dict[str, Any]:
    """Return the content of an annotation file. The last image has no annotation."""
    generator = np.random.default_rng(seed)
    entries = [
        {"id": 5 + 3 * number, "file_name": f"{number}.png", "height": size[0], "width": size[1]}
        for number, size in ((number, SIZES[number % len(SIZES)]) for number in range(images))
    ]
    annotations = [
        random_annotation(generator, number, entries[number % (images - 1)], kinds=kinds)
        for number in range((images - 1) * per_image)
    ]
    categories = [{"id": category, "name": name} for category, name in zip(CATEGORY_IDS, CLASSES, strict=True)]
    return {"images": entries, "annotations": annotations, "categories": categories}


def write_images(folder: Path, content: dict[str, Any]) -> Path:
    """Write the images of an annotation file's content, of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in content["images"]:
        pixels = np.random.default_rng(image["id"]).integers(0, 256, (image["height"], image["width"], 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / image["file_name"])
    return folder


def write_content(file: Path, content: Any) -> Path:
    """Write an annotation file."""
    file.write_text(json.dumps(content))
    return file
