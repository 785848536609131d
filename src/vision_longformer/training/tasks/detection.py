"""Detection with RetinaNet, and instance segmentation with Mask R-CNN: COCO's data and measures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from vision_longformer.datasets.coco import CocoSplit, read_coco
from vision_longformer.datasets.dense_loaders import DenseBatch
from vision_longformer.detection.build import build_mask_rcnn, build_retinanet
from vision_longformer.detection.mask_rcnn import MaskRCNN
from vision_longformer.detection.retinanet import RetinaNet
from vision_longformer.evaluation.detection import DetectionResult, evaluate_detector
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.images import AS_STORED, MAX_PIXELS, Reading
from vision_longformer.masks.rle import library
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.dense_models import Builder
from vision_longformer.training.tasks.dense import DenseTask, DenseTrained
from vision_longformer.training.trained import Trained
from vision_longformer.utils.devices import images_on


class Detector(DenseTrained):
    """A trained RetinaNet."""

    gives = "objects"
    build: ClassVar[Builder] = staticmethod(build_retinanet)
    with_masks: ClassVar[bool] = False

    def read(self, data: str | Path, split: str, *, skip_invalid: bool = False) -> CocoSplit:
        return read_coco_split(
            Path(data),
            split,
            with_masks=self.with_masks,
            skip_invalid=skip_invalid,
            classes=self.classes,
            reading=self.reading,
        )

    def evaluate(
        self, split: CocoSplit, how: EvaluationSetup, *, max_pixels: int = MAX_PIXELS
    ) -> DetectionResult | None:
        return evaluate_detector(self.model.to(how.device), split, self.preprocessing, how, max_pixels=max_pixels)

    def limit_detections(self, detections: int) -> None:
        cast(RetinaNet | MaskRCNN, self.model).set_detections(detections)


class MaskDetector(Detector):
    """A trained Mask R-CNN."""

    build = staticmethod(build_mask_rcnn)
    with_masks = True


class Detection(DenseTask):
    """DIR/train.json and DIR/val.json with their images in DIR/train and DIR/val."""

    best = "box_ap"
    learned = "boxes"
    trained: ClassVar[type[Detector]] = Detector

    def __init__(self, config: TrainConfig, data: Sequence[Path]) -> None:
        try:
            library()
        except ImportError as error:
            raise ValueError(str(error)) from error
        how: dict[str, Any] = {
            "with_masks": self.trained.with_masks,
            "skip_invalid": config.dense.skip_invalid,
            "reading": config.input.reading,
        }
        training = read_coco_split(data[0], "train", **how)
        validation = read_coco_split(data[0], "val", **how, classes=training.classes)
        super().__init__(config, training, validation, training.classes)
        self.training: CocoSplit
        self.validation: CocoSplit

    def digest(self) -> str:
        return digest_of(self.training)

    def losses(self, model: nn.Module, batch: DenseBatch, device: torch.device) -> dict[str, Tensor]:
        found = model(images_on(device, batch.images), batch.sizes, batch.targets)
        return {name: loss.float() * len(batch.sizes) for name, loss in found.items()}


class InstanceSegmentation(Detection):
    """The same, with masks."""

    best = "mask_ap"
    learned = "masks"
    trained = MaskDetector


def limit_of(trained: Trained) -> int:
    """Return how many objects a detector gives of an image, or of a tile, at most."""
    return int(cast(RetinaNet | MaskRCNN, trained.model).config.detections)


def read_coco_split(
    data: Path,
    split: str,
    *,
    with_masks: bool,
    skip_invalid: bool,
    classes: tuple[str, ...] | None = None,
    reading: Reading = AS_STORED,
) -> CocoSplit:
    """Read DIR/SPLIT.json; see `read_coco` for what is raised."""
    return read_coco(
        data / f"{split}.json",
        data / split,
        with_masks=with_masks,
        skip_invalid=skip_invalid,
        classes=classes,
        reading=reading,
    )


def digest_of(split: CocoSplit) -> str:
    """Return a digest of the names, boxes and labels of a split."""
    digest = hashlib.sha256(
        "\n".join(split.file_names[index] for index in range(len(split))).encode("utf-8", "surrogateescape")
    )
    for array in (split.ends, split.boxes, split.labels, split.is_crowd):
        digest.update(array.tobytes())
    return digest.hexdigest()
