"""What is known of the objects in an image, and what a detector found in it.

n objects, h×w image
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from vision_longformer.masks.rle import Rle
from vision_longformer.padding import Size


@dataclass(frozen=True)
class Target:
    """The objects of one image.

    Attributes:
        boxes: (n, 4) corners x1 y1 x2 y2 in pixels of the image as it is given to the model. A pixel is a square:
            the first one reaches from 0 to 1.
        labels: (n,) integers, class numbers from 0.
        masks: (n, h, w) booleans, for detectors that learn masks.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None


@dataclass(frozen=True)
class LeftOut:
    """Objects that were found beyond a detector's limit for one image.

    There may be more, as not everything takes part in the choice: see `candidates` and `proposals` of the settings.

    Attributes:
        scores: (n,) from 0 to 1.
        labels: (n,) class numbers from 0.
    """

    scores: Tensor
    labels: Tensor

    def count(self, *, min_score: float = 0.0, classes: Collection[int] | None = None) -> int:
        """Return the number of those that `wanted` says are wanted."""
        return int(wanted(self.scores, self.labels, min_score=min_score, classes=classes).sum())


def wanted(scores: Tensor, labels: Tensor, *, min_score: float, classes: Collection[int] | None) -> Tensor:
    """Return (n,) booleans: which of (n,) scores and labels are certain enough and of one of the classes.

    Args:
        scores: From 0 to 1.
        labels: Class numbers.
        min_score: What is less certain is not wanted.
        classes: Class numbers that are wanted; None for all.
    """
    certain = scores >= min_score
    if classes is None:
        return certain
    return certain & torch.isin(labels, torch.tensor(sorted(classes), dtype=labels.dtype, device=labels.device))


@dataclass(frozen=True)
class Detections:
    """The objects found in one image, best first.

    Attributes:
        boxes: (n, 4) corners x1 y1 x2 y2 in pixels of the image as it was given to the model.
        scores: (n,) from 0 to 1.
        labels: (n,) class numbers from 0.
        masks: (n, m, m) probabilities, each stretched over its box; None if the detector has no masks.
        left_out: What was found beyond the detector's limit; None if that is not known.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None
    left_out: LeftOut | None = None


def check_targets(
    targets: Sequence[Target], image_sizes: Sequence[Size], *, num_classes: int, masks: bool, like: Tensor
) -> list[Target]:
    """Return targets with boxes cut off at the edges of their images, in the device and precision of `like`.

    Raises:
        ValueError: Targets do not fit the images, the classes or each other; names image and object.
    """
    if len(targets) != len(image_sizes):
        raise ValueError(f"targets: expected {len(image_sizes)}, one for each image, got {len(targets)}")
    return [
        _check(target, f"targets[{number}]", size, num_classes=num_classes, masks=masks, like=like)
        for number, (target, size) in enumerate(zip(targets, image_sizes, strict=True))
    ]


def _check(target: Target, name: str, size: Size, *, num_classes: int, masks: bool, like: Tensor) -> Target:
    count = len(target.boxes)
    if target.boxes.shape != (count, 4):
        raise ValueError(f"{name}.boxes: expected shape (objects, 4), got {tuple(target.boxes.shape)}")
    if target.labels.shape != (count,) or target.labels.is_floating_point():
        raise ValueError(
            f"{name}.labels: expected {count} integers, one for each box, got {target.labels.dtype} of shape "
            f"{tuple(target.labels.shape)}"
        )
    dtype = torch.promote_types(like.dtype, torch.float32)
    boxes = clip_boxes_to_image(target.boxes.to(device=like.device, dtype=dtype), size)
    labels = target.labels.to(device=like.device, dtype=torch.int64)
    # written so that boxes of NaN fail too
    for number in (~(boxes[:, 2:] > boxes[:, :2]).all(dim=1)).nonzero().flatten().tolist():
        raise ValueError(
            f"{name}.boxes[{number}]={target.boxes[number].tolist()}: must be x1 < x2, y1 < y2 inside the image of "
            f"{size[0]}×{size[1]} (height×width) pixels"
        )
    for number in ((labels < 0) | (labels >= num_classes)).nonzero().flatten().tolist():
        raise ValueError(
            f"{name}.labels[{number}]={int(labels[number])}: must be a class number from 0 to {num_classes - 1}"
        )
    if not masks:
        return Target(boxes, labels)
    if target.masks is None or target.masks.shape != (count, *size):
        found = "none" if target.masks is None else f"shape {tuple(target.masks.shape)}"
        raise ValueError(f"{name}.masks: expected one for each box, shape {(count, *size)}, got {found}")
    return Target(boxes, labels, target.masks.to(like.device))


@dataclass(frozen=True, eq=False)
class FoundObjects:
    """What was found on an image, in the pixels of the image file: n objects.

    Attributes:
        boxes: (n, 4) x1, y1, x2, y2 in pixels of the image as its annotations take it.
        scores: (n,)
        labels: (n,) from 0, indices into the split's classes.
        masks: Of each, in the image's size; None where no masks are predicted.
        left_out: How many more were found at least, beyond a limit of objects in an image.
    """

    boxes: NDArray[np.floating[Any]]
    scores: NDArray[np.floating[Any]]
    labels: NDArray[np.integer[Any]]
    masks: Sequence[Rle] | None = None
    left_out: int = 0
