"""Detection with RetinaNet, and instance segmentation with Mask R-CNN: COCO's data and measures."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from vision_longformer.datasets.coco import CocoSplit, read_coco
from vision_longformer.datasets.dense_loaders import DenseBatch
from vision_longformer.evaluation.detection import DetectionResult, evaluate_detector
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.masks.rle import library
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.tasks.dense import DenseTask


class Detection(DenseTask):
    """DIR/train.json and DIR/val.json with their images in DIR/train and DIR/val."""

    def __init__(self, config: TrainConfig, data: Path) -> None:
        try:
            library()
        except ImportError as error:
            raise ValueError(str(error)) from error
        self.learned = "masks" if config.task == "instance_segmentation" else "boxes"
        self.best = "mask_ap" if self.learned == "masks" else "box_ap"
        training = read_coco_split(data, "train", config)
        validation = read_coco_split(data, "val", config, classes=training.classes)
        super().__init__(config, training, validation, training.classes)
        self.training: CocoSplit
        self.validation: CocoSplit

    def digest(self) -> str:
        return digest_of(self.training)

    def losses(self, model: nn.Module, batch: DenseBatch, device: torch.device) -> dict[str, Tensor]:
        found = model(batch.images.to(device, non_blocking=True), batch.sizes, batch.targets)
        return {name: loss.float() * len(batch.sizes) for name, loss in found.items()}

    def evaluate(self, model: nn.Module, how: EvaluationSetup) -> DetectionResult | None:
        max_pixels = self.config.input.max_pixels
        return evaluate_detector(model, self.validation, self.preprocessing, how, max_pixels=max_pixels)


def read_coco_split(
    data: Path, split: str, config: TrainConfig, *, classes: tuple[str, ...] | None = None
) -> CocoSplit:
    """Read DIR/SPLIT.json; see `read_coco` for what is raised."""
    return read_coco(
        data / f"{split}.json",
        data / split,
        with_masks=config.task != "detection",
        skip_invalid=config.dense.skip_invalid,
        classes=classes,
    )


def digest_of(split: CocoSplit) -> str:
    """Return a digest of the names, boxes and labels of a split."""
    digest = hashlib.sha256("\n".join(split.file_names[index] for index in range(len(split))).encode())
    for array in (split.ends, split.boxes, split.labels, split.is_crowd):
        digest.update(array.tobytes())
    return digest.hexdigest()
