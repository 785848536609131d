"""Short runs of detection and segmentation on tiny images of noise, that the tests of training share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.coco_cases import random_content, write_images
from detection.cases import BACKBONE
from training.cases import recipe
from vision_longformer.training.config import TrainConfig

TASKS = ("detection", "instance_segmentation", "semantic_segmentation")
ANCHORS = {"detection": 5, "instance_segmentation": 5}
HEADS: dict[str, dict[str, Any]] = {
    "detection": {"head_depth": 1, "head_width": 8},
    "instance_segmentation": {
        "head_depth": 1,
        "head_width": 8,
        "box_head_width": 16,
        "box_size": 3,
        "mask_size": 3,
        "proposals": 20,
        "proposal_candidates": [30, 20],
    },
    "semantic_segmentation": {"head_width": 8, "norm_groups": 2},
}


def make_coco(folder: Path, *, train: int = 5, val: int = 3) -> Path:
    """Write train.json, val.json and their images."""
    for seed, (split, images) in enumerate((("train", train), ("val", val))):
        content = random_content(seed=seed, images=images)
        write_images(folder / split, content)
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


def dense_recipe(task: str, **groups: Mapping[str, Any]) -> TrainConfig:
    """Return the recipe of a short run in which every random stream matters; `groups` override its options.

    Three epochs of three steps: 5 images by 2.
    """
    merged: dict[str, Any] = {"task": task, **groups}
    defaults: dict[str, dict[str, Any]] = {
        "model": {
            "name": "vision_longformer_nano",
            "options": {"config": json.loads(json.dumps(BACKBONE.to_dict()))},
            "drop_path_rate": 0.3,
        },
        "dense": {
            "head": {**HEADS[task], "pyramid_width": 8},
            "sides": [24, 40, 32],
            "max_side": 60,
            "scale": [0.8, 1.3],
            "crop": 30,
        },
        "augmentation": {"vertical_flip": 0.5, "color_jitter": 0.3},
        "optimizer": {"learning_rate": 1e-3, "clip_norm": 1.0, "ema_decay": 0.8, "layer_decay": 1.0},
        "compute": {"batch_size": 2, "workers": 0, "threads": 1, "device": "cpu"},
    }
    for group, options in defaults.items():
        merged[group] = {**options, **merged.get(group, {})}
    return recipe(**merged)
