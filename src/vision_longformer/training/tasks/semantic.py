"""Semantic segmentation: a class for every pixel."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.dense_loaders import DenseBatch
from vision_longformer.datasets.semantic import SemanticSplit, coco_classes, read_semantic
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.evaluation.segmentation import SemanticResult, evaluate_semantic
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.tasks.dense import DenseTask
from vision_longformer.training.tasks.detection import digest_of, read_coco_split


class Semantic(DenseTask):
    """COCO files with masks, or index images; `dense.labels` says which (see `datasets.semantic`)."""

    best = "miou"
    learned = "semantic"

    def __init__(self, config: TrainConfig, data: Path) -> None:
        training: CocoSplit | SemanticSplit
        if config.dense.labels == "coco":
            training = read_coco_split(data, "train", config)
            validation: CocoSplit | SemanticSplit = read_coco_split(data, "val", config, classes=training.classes)
            classes = coco_classes(training)
        else:
            training = read_semantic(data, "train", skip_invalid=config.dense.skip_invalid)
            validation = read_semantic(data, "val", skip_invalid=config.dense.skip_invalid)
            classes = training.classes
        super().__init__(config, training, validation, classes)

    def digest(self) -> str:
        if isinstance(self.training, CocoSplit):
            return digest_of(self.training)
        names = (f"{self.training.images[n]}\t{self.training.labels[n]}" for n in range(len(self.training)))
        return hashlib.sha256("\n".join(names).encode()).hexdigest()

    def losses(self, model: nn.Module, batch: DenseBatch, device: torch.device) -> dict[str, Tensor]:
        assert batch.semantic is not None
        images, labels = batch.images.to(device, non_blocking=True), batch.semantic.to(device, non_blocking=True)
        found = model(images, batch.sizes, labels)
        return {name: loss.float() * len(batch.sizes) for name, loss in found.items()}

    def evaluate(self, model: nn.Module, how: EvaluationSetup) -> SemanticResult | None:
        max_pixels = self.config.input.max_pixels
        return evaluate_semantic(model, self.validation, self.classes, self.preprocessing, how, max_pixels=max_pixels)
