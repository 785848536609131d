"""Semantic segmentation: a class for every pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from vision_longformer.datasets.checks import only_class, refuse_nothing_to_learn
from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.dense_loaders import DenseBatch
from vision_longformer.datasets.labels import Split, Wanted, pixel_counts
from vision_longformer.datasets.normalising import images_of
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.evaluation.segmentation import SemanticResult, evaluate_semantic
from vision_longformer.images import MAX_PIXELS
from vision_longformer.segmentation.config import SemanticConfig
from vision_longformer.segmentation.semantic import SemanticFPN, build_semantic_fpn
from vision_longformer.training.tasks.dense import DenseTask, DenseTrained
from vision_longformer.training.tasks.detection import digest_of
from vision_longformer.utils.steps import Steps


class SemanticModel(DenseTrained):
    """A trained model for semantic segmentation."""

    gives = "pixels"
    build = staticmethod(build_semantic_fpn)
    needs = "classes"

    def labels_as_in_training(self, wanted: Wanted) -> Wanted:
        values = self.preprocessing.get("label_values")
        ignored = cast(SemanticFPN, self.model).config.ignored_label
        return replace(wanted, label_values=None if values is None else tuple(values), ignored=ignored)

    def evaluate(self, split: Split, how: EvaluationSetup, *, max_pixels: int = MAX_PIXELS) -> SemanticResult | None:
        assert self.classes is not None
        model = self.model.to(how.device)
        return evaluate_semantic(model, split, self.classes, self.preprocessing, how, max_pixels=max_pixels)


class Semantic(DenseTask):
    """Objects, or index images (see `datasets.labels`)."""

    best = "miou"
    unit = "pixel"
    trained = SemanticModel

    def read(self) -> Steps[None]:
        yield from super().read()
        refuse_nothing_to_learn(self.training)
        self.remarks = [*only_class(self.classes), *self.remarks]
        if self.config.dense.label_values is not None:
            self.preprocessing["label_values"] = list(self.config.dense.label_values)

    def wanted(self) -> Wanted:
        ignored = self.config.dense.head.get("ignored_label", SemanticConfig.ignored_label)
        return replace(super().wanted(), ignored=ignored)

    def digest(self) -> str:
        if isinstance(self.training, CocoSplit):
            return digest_of(self.training)
        names = (f"{self.training.images[n]}\t{self.training.labels[n]}" for n in range(len(self.training)))
        return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()

    def build_model(self) -> nn.Module:
        model = cast(SemanticFPN, super().build_model())
        if self.config.dense.class_weights is not None:
            model.weigh_classes(self._class_weights(self.config.dense.class_weights))
        return model

    def _class_weights(self, wanted: str | tuple[float, ...]) -> Sequence[float]:
        """Return the weight of each class; balanced ones are those of scikit-learn: all / (classes × own pixels).

        Raises:
            ValueError: There is not one for each class, or pixels were not counted.
        """
        if isinstance(wanted, str):
            counts = pixel_counts(self.training)
            if counts is None:
                raise ValueError("dense.class_weights=balanced: labels must be read to count pixels (input.check=none)")
            occurring = counts > 0
            weights = np.where(occurring, counts.sum() / (occurring.sum() * np.maximum(counts, 1)), 0.0)
            found: list[float] = weights.tolist()
            return found
        if len(wanted) != len(self.classes):
            raise ValueError(
                f"dense.class_weights={list(wanted)}: there must be one for each of the {len(self.classes)} classes "
                f"({', '.join(self.classes)})"
            )
        return wanted

    def losses(self, model: nn.Module, batch: DenseBatch, device: torch.device) -> dict[str, Tensor]:
        assert batch.semantic is not None
        images, labels = images_of(batch, device), batch.semantic.to(device, non_blocking=True)
        found = model(images, batch.sizes, labels)
        return {name: loss.float() * len(batch.sizes) for name, loss in found.items()}
