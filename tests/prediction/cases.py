"""Small models that find things in images, and made-up results, that tests of prediction share."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.crs import CRS

from detection.cases import liven, soften
from training.dense_cases import dense_recipe
from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.masks.rle import Mask, crop_to_rle, mask_to_box
from vision_longformer.padding import Size
from vision_longformer.prediction.measures import ImageFacts
from vision_longformer.prediction.results import ObjectsResult, SemanticResult
from vision_longformer.training.dense_models import build_dense_model, save_dense
from vision_longformer.training.tasks import task_class
from vision_longformer.training.trained import Trained
from vision_longformer.training.weight_files import load_weights

CLASSES = ("cell", "=1+1", "unused")
UTM = {  # in metres
    "crs": CRS.from_epsg(32633).to_wkt(),
    "transform": [0.25, 0.0, 500000.5, 0.0, -0.25, 5100000.25],
}


def enliven(model: Any, task: str) -> None:
    """Draw the parameters of a model for dense predictions so that its scores are all over the range."""
    liven(model)
    if task == "detection":
        soften(model.head.classification_head.cls_logits, model.head.regression_head.bbox_reg)
    if task == "instance_segmentation":
        predictor = model.roi_heads.box_predictor
        soften(model.rpn.head.bbox_pred, predictor.cls_score, predictor.bbox_pred)


def write_weights(path: Path, task: str, *, seed: int = 3) -> Path:
    """Write weights that are drawn so that scores are all over the range."""
    config = dense_recipe(task)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = build_dense_model(config, task_class(task).trained.build, num_classes=len(CLASSES))  # type: ignore[attr-defined]
    enliven(model, task)
    preprocessing = {
        "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic", "side": None,
        "max_side": None, "scale": 1.0,
    }  # fmt: skip
    save_dense(model, path, config=config, classes=CLASSES, preprocessing=preprocessing)
    return path


@functools.cache
def trained(task: str, folder: Path) -> Trained:
    """Return the model of `write_weights`, which is written into a folder."""
    return load_weights(write_weights(folder / f"{task}.safetensors", task))


def noise_image(height: int = 40, width: int = 56, *, seed: int = 0) -> NDArray[np.uint8]:
    """Return noise as an RGB image."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def blob(size: Size, centre: tuple[float, float], radii: tuple[float, float]) -> Mask:
    """Return an ellipse as a mask; both pairs are y and x."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    return np.asarray(((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 < 1)


def objects_of(masks: list[Mask], size: Size, *, labels: list[int] | None = None) -> FoundObjects:
    """Return objects with these masks, the first the best."""
    boxes = np.array([mask_to_box(mask) for mask in masks], float).reshape(-1, 4)
    rles = [crop_to_rle(mask, corner=(0, 0), size=size) for mask in masks]
    scores = 1 - (np.arange(len(masks)) + 1) / (len(masks) + 2)
    return FoundObjects(boxes, scores, np.array(labels or [0] * len(masks), int), rles)


def random_objects(
    seed: int, *, size: Size = (60, 80), count: int = 9, facts: dict[str, Any] | None = None, masks: bool = True
) -> ObjectsResult:
    """Return objects, some of which overlap, touch the edges, have holes, or fall into parts."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        centre, radii = generator.uniform(0, size), generator.uniform(2, 14, 2)
        mask = blob(size, (centre[0], centre[1]), (radii[0], radii[1])) & (generator.random(size) < 0.9)
        if mask.any():
            made.append(mask)
    found = objects_of(made, size, labels=generator.integers(0, 2, len(made)).tolist())
    if not masks:
        found = FoundObjects(found.boxes + generator.uniform(-0.4, 0.4, found.boxes.shape), found.scores, found.labels)
    return ObjectsResult(image=ImageFacts("a.tif", size, **(facts or {})), class_names=CLASSES, objects=found)


def random_classes(
    seed: int, *, size: Size = (60, 80), facts: dict[str, Any] | None = None, missing: bool = False
) -> Any:
    """Return classes of pixels in blobs."""
    labels = np.zeros(size, np.uint8)
    labels[blob(size, (20, 30), (15, 25))] = 1
    labels[np.random.default_rng(seed).random(size) < 0.1] = 2
    valid = None
    if missing:
        valid = ~blob(size, (50, 70), (20, 20))
        labels[~valid] = 255
    return SemanticResult(
        image=ImageFacts("a.tif", size, **(facts or {})), class_names=CLASSES, labels=labels, valid=valid
    )
