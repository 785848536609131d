"""Splits of noise, what is found in them, and the pages of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reports.pages import Page
from vision_longformer.datasets.coco import CocoSplit, read_coco
from vision_longformer.datasets.options import DenseOptions
from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.evaluation.coco import coco_results, evaluate
from vision_longformer.evaluation.detection import DetectionResult
from vision_longformer.evaluation.segmentation import SemanticResult
from vision_longformer.masks.rle import mask_to_rle
from vision_longformer.reports.training_page import write_training_page
from vision_longformer.training.checkpoints import Progress
from vision_longformer.training.config import ScheduleOptions, TrainConfig
from vision_longformer.training.run_folder import RunFolder

HEIGHT, WIDTH = 60, 80
Box = tuple[float, float, float, float]  # x1, y1, x2, y2
Annotation = tuple[Box, int]  # with its class
Detection = tuple[Box, int, float]  # with its class and score
A, B, C = (5.0, 5.0, 25.0, 35.0), (40.0, 10.0, 70.0, 30.0), (30.0, 40.0, 60.0, 58.0)


def make(
    folder: Path,
    images: list[list[Annotation]],
    *,
    classes: tuple[str, ...] = ("cat", "dog", "hen"),
    crowds: tuple[int, ...] = (),
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> CocoSplit:
    """A split of noise, its objects as boxes; `crowds` are numbers of annotations, from 0."""
    height, width = size
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    content: dict[str, Any] = {
        "categories": [{"id": number + 1, "name": name} for number, name in enumerate(classes)],
        "images": [],
        "annotations": [],
    }
    for number, objects in enumerate(images):
        Image.fromarray(noise).save(folder / f"{number}.png", compress_level=0)
        content["images"].append({"id": number + 1, "file_name": f"{number}.png", "height": height, "width": width})
        for (x1, y1, x2, y2), label in objects:
            place = len(content["annotations"])
            content["annotations"].append(
                {
                    "id": place + 1,
                    "image_id": number + 1,
                    "category_id": label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(place in crowds),
                    "segmentation": mask_to_rle(rectangle((x1, y1, x2, y2), size))
                    if place in crowds
                    else [[x1, y1, x2, y1, x2, y2, x1, y2]],
                }
            )
    (folder / "val.json").write_text(json.dumps(content))
    return read_coco(folder / "val.json", folder, with_masks=True)


def rectangle(box: Box, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    mask = np.zeros(size, bool)
    x1, y1, x2, y2 = map(int, box)
    mask[y1:y2, x1:x2] = True
    return mask


def found_on(split: CocoSplit, detections: list[list[Detection]], *, masks: bool = False) -> DetectionResult:
    """The result of detections, image by image."""
    found = {
        image: FoundObjects(
            np.array([box for box, _, _ in own], float).reshape(-1, 4),
            np.array([score for _, _, score in own], float),
            np.array([label for _, label, _ in own], np.int64),
            [mask_to_rle(rectangle(box)) for box, _, _ in own] if masks else None,
        )
        for image, own in enumerate(detections)
    }
    return DetectionResult(split, found, evaluate(split, coco_results(split, found), masks=masks))


def write(
    folder: Path,
    result: DetectionResult | SemanticResult,
    *,
    metrics: list[dict[str, Any]] | None = None,
    config: TrainConfig | None = None,
) -> Page:
    run = RunFolder(folder)
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in metrics or []))
    run.write_about({"images": 1402, "parameters": 2_823_899, "device": "cpu", "threads": 1})
    progress = Progress(step=20, evaluated_epochs=2, best=0.5, best_epoch=2, seconds=4321.0)
    config = config or TrainConfig(schedule=ScheduleOptions(epochs=2), dense=DenseOptions(sides=(96, 128)))
    config = dataclasses.replace(config, task="semantic_segmentation")
    if isinstance(result, DetectionResult):
        config = dataclasses.replace(config, task="instance_segmentation" if result.scores.mask else "detection")
    write_training_page(run, result, config, progress)
    return Page(run.report)


def step(number: int, *, epoch: float, **parts: float) -> dict[str, Any]:
    line = {"step": number, "epoch": epoch, "loss": 2.0, "learning_rate": 1e-3, "images_per_second": 7.0, "images": 3}
    return line | {f"loss_{name}": value for name, value in parts.items()}


def evaluated(number: int, *, epoch: int, **measures: float | None) -> dict[str, Any]:
    return {"step": number, "epoch": epoch} | {f"val_{name}": value for name, value in measures.items()}
