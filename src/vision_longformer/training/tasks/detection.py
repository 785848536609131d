"""Detection with RetinaNet, and instance segmentation with Mask R-CNN: COCO's data and measures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.dense_loaders import DenseBatch
from vision_longformer.datasets.labels import What
from vision_longformer.datasets.normalising import images_of
from vision_longformer.detection.build import build_mask_rcnn, build_retinanet
from vision_longformer.detection.mask_rcnn import MaskRCNN
from vision_longformer.detection.retinanet import RetinaNet
from vision_longformer.evaluation.detection import DetectionResult, evaluate_detector
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.images import MAX_PIXELS
from vision_longformer.masks.rle import library
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.dense_models import Builder, save_dense
from vision_longformer.training.tasks.dense import DenseTask, DenseTrained
from vision_longformer.training.trained import Trained
from vision_longformer.weights import MIN_SCORE


class Detector(DenseTrained):
    """A trained RetinaNet."""

    gives = "objects"
    build: ClassVar[Builder] = staticmethod(build_retinanet)
    needs: ClassVar[What] = "boxes"

    def evaluate(
        self, split: CocoSplit, how: EvaluationSetup, *, max_pixels: int = MAX_PIXELS
    ) -> DetectionResult | None:
        return evaluate_detector(self.model.to(how.device), split, self.preprocessing, how, max_pixels=max_pixels)

    def limit_detections(self, detections: int) -> None:
        cast(RetinaNet | MaskRCNN, self.model).set_detections(detections)


class MaskDetector(Detector):
    """A trained Mask R-CNN."""

    build = staticmethod(build_mask_rcnn)
    needs = "masks"


class Detection(DenseTask):
    """Objects in boxes (see `datasets.labels`)."""

    best = "box_ap"
    unit = "object"
    trained: ClassVar[type[Detector]] = Detector
    training: CocoSplit
    validation: CocoSplit
    _min_score: float | None = None  # that did best on the validation images

    def __init__(self, config: TrainConfig, data: Sequence[Path]) -> None:
        try:
            library()
        except ImportError as error:
            raise ValueError(str(error)) from error
        super().__init__(config, data)

    def digest(self) -> str:
        return digest_of(self.training)

    def evaluate(self, model: nn.Module, how: EvaluationSetup) -> DetectionResult | None:
        result = cast(DetectionResult | None, super().evaluate(model, how))
        if result is not None:
            self._min_score = None if result.best is None else result.best[0]
        return result

    def save_weights(self, model: nn.Module, path: Path) -> None:
        chosen = {} if self._min_score is None else {MIN_SCORE: self._min_score}
        about = self.preprocessing | chosen
        save_dense(model, path, config=self.config, classes=self.classes, preprocessing=about)

    def losses(self, model: nn.Module, batch: DenseBatch, device: torch.device) -> dict[str, Tensor]:
        found = model(images_of(batch, device), batch.sizes, batch.targets)
        return {name: loss.float() * len(batch.sizes) for name, loss in found.items()}


class InstanceSegmentation(Detection):
    """The same, with masks."""

    best = "mask_ap"
    trained = MaskDetector


def limit_of(trained: Trained) -> int:
    """Return how many objects a detector gives of an image, or of a tile, at most."""
    return int(cast(RetinaNet | MaskRCNN, trained.model).config.detections)


def digest_of(split: CocoSplit) -> str:
    """Return a digest of the names, boxes and labels of a split."""
    digest = hashlib.sha256(
        "\n".join(split.file_names[index] for index in range(len(split))).encode("utf-8", "surrogateescape")
    )
    for array in (split.ends, split.boxes, split.labels, split.is_crowd):
        digest.update(array.tobytes())
    return digest.hexdigest()
