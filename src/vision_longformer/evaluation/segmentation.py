"""How well the classes of pixels are told apart on a split."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.datasets.dense_loaders import DenseBatch, DenseImages, Preprocessing, read_label
from vision_longformer.datasets.labels import Split
from vision_longformer.datasets.normalising import images_of
from vision_longformer.evaluation.examples import WORST_IMAGES, evenly
from vision_longformer.evaluation.flips import with_flips
from vision_longformer.evaluation.iou import confusion_matrix, scores
from vision_longformer.evaluation.loop import EvaluationSetup, for_each_batch
from vision_longformer.segmentation.config import UNLABELLED


@dataclass(frozen=True, eq=False)
class SemanticResult:
    """How pixels were classified.

    Attributes:
        split: The images and their labels.
        classes: Names.
        confusion: (K, K) numbers of pixels, true class by predicted class.
        labels: (H, W) predicted classes of a few images, by their place in the split: some at even distances, and the
            worst of the others; see `examples`.
        accuracy: (n,) share of the labelled pixels of each image whose class is right; NaN where none is labelled.
    """

    split: Split
    classes: tuple[str, ...]
    confusion: Tensor
    labels: dict[int, NDArray[np.int64]]
    accuracy: Tensor

    def metrics(self) -> dict[str, Any]:
        """Return "miou", "pixel_accuracy", "iou_CLASS" of each class, None for those that do not occur."""
        found = scores(self.confusion)
        by_class = {
            f"iou_{name}": None if math.isnan(iou) else iou
            for name, iou in zip(self.classes, found.class_iou, strict=True)
        }
        return {"miou": found.miou, "pixel_accuracy": found.pixel_accuracy, **by_class}

    def examples(self) -> tuple[list[int], list[int]]:
        """Return the places of the images in `labels`: those at even distances in the split, and the worst first."""
        even = evenly(len(self.split))
        return even, worst_of([image for image in self.labels if image not in even], self.accuracy)


@torch.inference_mode()
def evaluate_semantic(
    model: nn.Module,
    split: Split,
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    how: EvaluationSetup,
    *,
    max_pixels: int,
) -> SemanticResult | None:
    """Classify every pixel of a split, at the size of its image files.

    Args:
        model: See `SemanticFPN`; put into evaluation mode.
        split: The images.
        classes: The model's.
        preprocessing: See `dense_loaders`.
        how: Batches, the device, and the processes that share the work.
        max_pixels: Refuse larger images.

    Returns:
        None if `how.should_stop` said so in any process.

    Raises:
        ImageError: An image or a label cannot be read.
    """
    seen: Any = with_flips(model.eval(), how.flips)
    images = DenseImages(split, None, preprocessing, max_pixels=max_pixels)
    confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    accuracy = torch.zeros(len(images), dtype=torch.float64)
    even = evenly(len(images))
    labels: dict[int, NDArray[np.int64]] = {}

    def take(batch: DenseBatch) -> None:
        nonlocal confusion
        with how.autocast():
            logits = seen.logits(images_of(batch, how.device), batch.sizes)
        for number, (index, size, valid) in enumerate(zip(batch.indices, batch.sizes, batch.valid, strict=True)):
            predicted = classify(logits[number, :, : size[0], : size[1]], images.size(index))
            truth = torch.from_numpy(read_label(split, index, valid=valid, max_pixels=max_pixels))
            own = confusion_matrix(predicted, truth, num_classes=len(classes), ignore_index=UNLABELLED)
            confusion += own
            accuracy[index] = own.diagonal().sum() / own.sum()
            labels[index] = predicted.numpy()
            kept = {*even, *worst_of([image for image in labels if image not in even], accuracy)}
            for image in labels.keys() - kept:
                del labels[image]

    if not for_each_batch(images, how, take):
        return None
    total = how.processes.sum(confusion.to(how.device)).cpu()
    every = how.processes.sum(accuracy.to(how.device)).cpu()
    gathered: dict[int, NDArray[np.int64]] = {}
    for own in how.processes.gather(labels):
        gathered |= own
    kept = {*even, *worst_of([image for image in gathered if image not in even], every)}
    gathered = {image: gathered[image] for image in sorted(gathered.keys() & kept)}
    return SemanticResult(split, classes, total, gathered, every)


def worst_of(images: Iterable[int], accuracy: Tensor) -> list[int]:
    """Return the few images with the lowest accuracy, worst first; never one that is all right, or has no labels."""
    wrong = [image for image in images if float(accuracy[image]) < 1]
    return sorted(wrong, key=lambda image: (float(accuracy[image]), image))[:WORST_IMAGES]


def classify(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the (H, W) classes of an image of (height, width) `size` from (K, h, w) logits."""
    if tuple(logits.shape[1:]) != size:
        logits = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
    return logits.argmax(dim=0).cpu()
