"""Names that people look for have one home each, however the rooms are arranged."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import vision_longformer

HOMES = {
    "read_pixels": "images.pixels",
    "read_array": "images.pixels",
    "open_reader": "images.open",
    "describe_image": "images.open",
    "read_georeference": "images.open",
    "ImageError": "images.reader",
    "unit_rows": "images.values",
    "encode_files": "features.extract",
    "find_images": "images.find",
    "Source": "images.find",
    "load_features": "features.load",
    "read_split": "datasets.classification",
    "read_coco": "datasets.coco",
    "segmentation_to_mask": "masks.rle",
    "stream": "streaming.model",
    "plan": "memory.plans",
    "train": "training.trainer",
    "Encoder": "features.encoder",
}


@pytest.mark.parametrize("name", HOMES)
def test_a_name_is_defined_once(name: str) -> None:
    home = f"vision_longformer.{HOMES[name]}"

    defined = []
    for module in pkgutil.walk_packages(vision_longformer.__path__, "vision_longformer."):
        if ".triton." not in module.name and not module.name.endswith("__main__"):
            value = vars(importlib.import_module(module.name)).get(name)
            if value is not None and getattr(value, "__module__", None) == module.name:
                defined.append(module.name)

    assert defined == [home]
