"""Measures of semantic segmentation, all from a matrix of counts, which is summed over images and processes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SemanticScores:
    """How well pixels are classified, as fractions.

    Attributes:
        miou: Mean of `class_iou` over the classes that occur, in labels or predictions; 0 where none does.
        pixel_accuracy: Share of labelled pixels whose class is right; 0 where there are none.
        class_iou: Of each class: pixels that are and are called so, over those that are or are called so; NaN for a
            class that does not occur.
        foreground_iou: Of class 1 where there are but two, background and one other; else None.
    """

    miou: float
    pixel_accuracy: float
    class_iou: tuple[float, ...]
    foreground_iou: float | None


def confusion_matrix(predicted: Tensor, target: Tensor, *, num_classes: int, ignore_index: int | None) -> Tensor:
    """Count pixels by true class and predicted class: (K, K) int64.

    Args:
        predicted: Classes, of any shape.
        target: True classes, of the same shape.
        num_classes: K.
        ignore_index: Target of pixels that do not count, if any.

    Raises:
        ValueError: The shapes differ, or a class is none of the K.
    """
    if predicted.shape != target.shape:
        raise ValueError(f"predicted is {tuple(predicted.shape)} and target {tuple(target.shape)}; they must agree")
    predicted, target = predicted.flatten().long(), target.flatten().long()
    if ignore_index is not None:
        counted = target != ignore_index
        predicted, target = predicted[counted], target[counted]
    for name, values in (("predicted", predicted), ("target", target)):
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
            found = f"{int(values.min())} to {int(values.max())}"
            raise ValueError(f"{name} has classes from {found}; there are {num_classes}, from 0 on")
    pairs = target * num_classes + predicted
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def scores(confusion: Tensor) -> SemanticScores:
    """Return the measures of a (K, K) matrix of pixels, true class by predicted class."""
    counts = confusion.cpu().double()  # exact up to 2^53 pixels
    right = counts.diagonal()
    either = counts.sum(dim=0) + counts.sum(dim=1) - right
    class_iou = tuple(
        float(hits / all_) if all_ else math.nan for hits, all_ in zip(right.tolist(), either.tolist(), strict=True)
    )
    occurring = [iou for iou in class_iou if not math.isnan(iou)]
    total = float(counts.sum())
    return SemanticScores(
        miou=sum(occurring) / len(occurring) if occurring else 0.0,
        pixel_accuracy=float(right.sum()) / total if total else 0.0,
        class_iou=class_iou,
        foreground_iou=(0.0 if math.isnan(class_iou[1]) else class_iou[1]) if len(class_iou) == 2 else None,
    )
