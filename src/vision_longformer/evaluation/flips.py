"""Test-time flips: a model looks at an image and at mirrored copies of it, and what it says of them is averaged.

B images, C channels, H×W image, K classes, n objects, V views
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_iou

from vision_longformer.detection.boxes import Detections
from vision_longformer.padding import Size, check_batch

Flips = Literal["none", "horizontal", "all"]
ROW, COLUMN = -2, -1  # axes
VIEWS: dict[Flips, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "horizontal": ((), (COLUMN,)),
    "all": ((), (COLUMN,), (ROW,), (ROW, COLUMN)),
}
AT_ONCE = 1024  # objects that are compared with all others


def check_flips(flips: str) -> Flips:
    """Return a choice of flips.

    Raises:
        ValueError: There is no such choice.
    """
    if flips not in VIEWS:
        raise ValueError(f"flips={flips}: must be one of {', '.join(VIEWS)}")
    return flips


def with_flips(model: nn.Module, flips: Flips) -> nn.Module:
    """Return a model that looks at flipped images too; with "none" the model itself."""
    return model if flips == "none" else FlippedModel(model, flips)


class FlippedModel(nn.Module):
    """Says of images what a model says of them and of flipped copies, on average. It only looks: it cannot be trained.

    Args:
        model: A classifier of images of one size, a detector or a semantic segmentation model, in evaluation mode.
        flips: "horizontal" for left and right exchanged; "all" for top and bottom too, and both.
    """

    def __init__(self, model: nn.Module, flips: Flips) -> None:
        super().__init__()
        self._model: Any = model
        self._views = VIEWS[flips]

    @property
    def config(self) -> Any:
        """Settings of the model."""
        return self._model.config

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean (B, K) logits of a classifier."""
        return torch.stack([self._model(images.flip(axes)) for axes in self._views]).mean(dim=0)

    def logits(
        self,
        images: Tensor,
        image_sizes: Sequence[Size] | Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Return the mean (B, K, H, W) logits of a semantic segmentation model; see `SemanticFPN.logits`."""
        sizes = check_batch(images, image_sizes)
        total: Tensor | None = None
        for axes in self._views:
            there = {} if valid is None else {"valid": flipped(valid, sizes, axes)}
            seen = flipped(self._model.logits(flipped(images, sizes, axes), sizes, **there), sizes, axes)
            total = seen if total is None else total.add_(seen)
        assert total is not None
        return total.div_(len(self._views))

    def detect(self, images: Tensor, image_sizes: Sequence[Size] | Tensor | None = None) -> list[Detections]:
        """Return what a detector finds in each image; see `united`."""
        sizes = check_batch(images, image_sizes)
        found: list[list[Detections]] = []
        for axes in self._views:
            seen = self._model.detect(flipped(images, sizes, axes), sizes)
            found.append([flipped_back(own, size, axes) for own, size in zip(seen, sizes, strict=True)])
        config = self._model.config
        return [
            united(views, nms_threshold=config.nms_threshold, limit=config.detections)
            for views in zip(*found, strict=True)
        ]


def flipped(values: Tensor, sizes: Sequence[Size], axes: tuple[int, ...]) -> Tensor:
    """Return (B, ..., H, W) values of padded images, each flipped within its (height, width)."""
    if not axes:
        return values
    if all(size == tuple(values.shape[-2:]) for size in sizes):
        return values.flip(axes)
    result = values.clone()
    for own, source, (height, width) in zip(result, values, sizes, strict=True):
        own[..., :height, :width] = source[..., :height, :width].flip(axes)
    return result


def flipped_back(found: Detections, size: Size, axes: tuple[int, ...]) -> Detections:
    """Return objects of a flipped image of (height, width) `size` as they lie in the image itself."""
    if not axes:
        return found
    x1, y1, x2, y2 = found.boxes.unbind(dim=1)
    if COLUMN in axes:
        x1, x2 = size[1] - x2, size[1] - x1
    if ROW in axes:
        y1, y2 = size[0] - y2, size[0] - y1
    masks = None if found.masks is None else found.masks.flip(axes)
    return replace(found, boxes=torch.stack([x1, y1, x2, y2], dim=1), masks=masks)


def united(views: Sequence[Detections], *, nms_threshold: float, limit: int) -> Detections:
    """Return the objects of several views of an image, each once, best first.

    An object's score is the mean, over the views, of the best score that each gives an object of the same class in the
    same place, 0 where it sees none. Of objects in one place the best one stays, with its box and mask.

    Args:
        views: What was found, in pixels of the image.
        nms_threshold: Objects of a class whose boxes overlap by more (IoU) are one.
        limit: The most objects.
    """
    boxes, labels, own = (torch.cat([getattr(view, name) for view in views]) for name in ("boxes", "labels", "scores"))
    bests = own.new_zeros(len(views), len(own))
    for view, best in zip(views, bests, strict=True):
        if len(view.boxes):
            parts = zip(boxes.split(AT_ONCE), labels.split(AT_ONCE), strict=True)
            best.copy_(torch.cat([_best(*part, view, nms_threshold) for part in parts]))
    scores = bests.sort(dim=0).values.mean(dim=0)  # whatever the order of the views
    # Objects in one place often share a mean: the one of the better view is taken.
    order = own.argsort(descending=True, stable=True)
    order = order[scores[order].argsort(descending=True, stable=True)]
    ranks = torch.arange(len(order), 0, -1, dtype=torch.float32, device=order.device)
    kept = order[batched_nms(boxes[order].float(), ranks, labels[order], nms_threshold)][:limit]
    masks = None if views[0].masks is None else torch.cat([cast(Tensor, view.masks) for view in views])[kept]
    left_out = [view.left_out for view in views if view.left_out is not None]
    most = max(left_out, key=lambda left: len(left.scores), default=None)
    return Detections(boxes[kept], scores[kept], labels[kept], masks, most)


def _best(boxes: Tensor, labels: Tensor, view: Detections, threshold: float) -> Tensor:
    """Return the best score that a view gives an object in the place of each of (n, 4) boxes and (n,) labels."""
    same = (box_iou(boxes, view.boxes) > threshold) & (labels[:, None] == view.labels)
    return torch.where(same, view.scores, 0).amax(dim=1)
