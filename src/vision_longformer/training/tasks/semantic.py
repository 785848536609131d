"""Semantic segmentation: a class for every pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.dense_loaders import DenseBatch
from vision_longformer.datasets.semantic import BACKGROUND, SemanticSplit, coco_classes, read_semantic
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.evaluation.segmentation import SemanticResult, evaluate_semantic
from vision_longformer.images import MAX_PIXELS
from vision_longformer.segmentation.semantic import build_semantic_fpn
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.tasks.dense import DenseTask, DenseTrained
from vision_longformer.training.tasks.detection import digest_of, read_coco_split
from vision_longformer.utils.devices import images_on


class SemanticModel(DenseTrained):
    """A trained model for semantic segmentation."""

    gives = "pixels"
    build = staticmethod(build_semantic_fpn)

    def read(self, data: str | Path, split: str, *, skip_invalid: bool = False) -> CocoSplit | SemanticSplit:
        data, classes = Path(data), self.classes
        assert classes is not None
        if classes[0] != BACKGROUND or not (data / f"{split}.json").is_file():  # labels of objects begin with it
            return read_semantic(data, split, classes=classes, skip_invalid=skip_invalid, reading=self.reading)
        return read_coco_split(
            data, split, with_masks=True, skip_invalid=skip_invalid, classes=classes[1:], reading=self.reading
        )

    def evaluate(
        self, split: CocoSplit | SemanticSplit, how: EvaluationSetup, *, max_pixels: int = MAX_PIXELS
    ) -> SemanticResult | None:
        assert self.classes is not None
        model = self.model.to(how.device)
        return evaluate_semantic(model, split, self.classes, self.preprocessing, how, max_pixels=max_pixels)


class Semantic(DenseTask):
    """COCO files with masks, or index images; `dense.labels` says which (see `datasets.semantic`)."""

    best = "miou"
    learned = "semantic"
    trained = SemanticModel

    def __init__(self, config: TrainConfig, data: Sequence[Path]) -> None:
        folder = data[0]
        how: dict[str, Any] = {"skip_invalid": config.dense.skip_invalid, "reading": config.input.reading}
        training: CocoSplit | SemanticSplit
        if config.dense.labels == "coco":
            how["with_masks"] = True
            training = read_coco_split(folder, "train", **how)
            validation: CocoSplit | SemanticSplit = read_coco_split(folder, "val", **how, classes=training.classes)
            classes = coco_classes(training)
        else:
            training = read_semantic(folder, "train", **how)
            validation = read_semantic(folder, "val", **how)
            classes = training.classes
        super().__init__(config, training, validation, classes)
        for split in (training, validation):
            if isinstance(split, SemanticSplit):
                self.remarks = [*self.remarks, *split.remarks]

    def digest(self) -> str:
        if isinstance(self.training, CocoSplit):
            return digest_of(self.training)
        names = (f"{self.training.images[n]}\t{self.training.labels[n]}" for n in range(len(self.training)))
        return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()

    def losses(self, model: nn.Module, batch: DenseBatch, device: torch.device) -> dict[str, Tensor]:
        assert batch.semantic is not None
        images, labels = images_on(device, batch.images), batch.semantic.to(device, non_blocking=True)
        found = model(images, batch.sizes, labels)
        return {name: loss.float() * len(batch.sizes) for name, loss in found.items()}
