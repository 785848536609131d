"""Small models, and batches of images of very different sizes, that the tests of dense prediction share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_helpers import noise
from vision_longformer import ModelConfig, StageConfig, VisionLongformer, Windowed
from vision_longformer.detection import MaskRCNN, RetinaNet, Target, build_mask_rcnn, build_retinanet
from vision_longformer.padding import Size

# The largest one, one wide and one tall, one whose sides are no multiples of a stride, one smaller than any.
SIZES: tuple[Size, ...] = ((101, 130), (37, 130), (101, 18), (64, 97), (5, 3))
BACKBONE = ModelConfig(
    tuple(
        StageConfig(1, width, 2, patch_size=patch, num_global_tokens=tokens, attention=Windowed(window_size=2))
        for width, patch, tokens in ((8, 4, 1), (12, 2, 2), (16, 2, 1), (24, 2, 0))
    ),
    image_size=(64, 96),
)
RETINANET: dict[str, Any] = {"num_classes": 3, "pyramid_width": 14, "head_depth": 2, "head_width": 10}
MASK_RCNN: dict[str, Any] = {**RETINANET, "box_head_width": 22, "box_size": 5, "mask_size": 6}


def backbone(dtype: torch.dtype = torch.float64) -> VisionLongformer:
    """Return a new backbone that reacts to its input."""
    model = VisionLongformer(BACKBONE)
    liven(model)
    return model.to(dtype).eval()


def retinanet(dtype: torch.dtype = torch.float64, **settings: Any) -> RetinaNet:
    """Return a detector that finds things with scores all over the range."""
    model: RetinaNet = build_retinanet(backbone(dtype), **{**RETINANET, **settings}).to(dtype)
    liven(model)
    soften(model.head.classification_head.cls_logits, model.head.regression_head.bbox_reg)
    model.eval()
    return model


def mask_rcnn(dtype: torch.dtype = torch.float64, **settings: Any) -> MaskRCNN:
    """Return the same with masks."""
    model = build_mask_rcnn(backbone(dtype), **{**MASK_RCNN, **settings}).to(dtype)
    liven(model)
    soften(model.rpn.head.bbox_pred, model.roi_heads.box_predictor.cls_score, model.roi_heads.box_predictor.bbox_pred)
    return model.eval()


DETECTORS: dict[str, Callable[..., Any]] = {"retinanet": retinanet, "mask_rcnn": mask_rcnn}


def liven(model: nn.Module) -> None:
    """Draw weights so that what goes in matters at the end: PyTorch starts smaller, and many biases at zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.ndim > 1:
                parameter.copy_(values * (1.2 / parameter[0].numel() ** 0.5))
            else:
                parameter.copy_(values * 0.2 + (1 if "norm" in name and name.endswith("weight") else 0))


def soften(*layers: nn.Module) -> None:
    """Shrink what last layers put out, so that scores are not all 0 or 1 and boxes stay near where they start."""
    with torch.no_grad():
        for layer in layers:
            for parameter in layer.parameters():
                parameter.mul_(0.2)


def images(sizes: Sequence[Size] = SIZES, *, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Return a (3, h, w) image of noise for each size."""
    return [noise(3, *size, seed=number, dtype=dtype) for number, size in enumerate(sizes)]


def batch_of(singles: Sequence[Tensor], *, extra: int = 0, padding: float = float("nan")) -> Tensor:
    """Stack images or maps (..., h, w), padded at the bottom and right with what must not matter."""
    height, width = (max(single.shape[axis] for single in singles) + extra for axis in (-2, -1))
    return torch.stack([F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]), value=padding) for x in singles])


def targets(sizes: Sequence[Size] = SIZES) -> list[Target]:
    """Return some boxes for each image, among them the whole image; the second image has none."""
    found = []
    for number, (height, width) in enumerate(sizes):
        shares = torch.tensor([[0, 0, 1, 1], [0.1, 0.5, 0.9, 1], [0.3, 0.2, 0.5, 0.6]])[: 0 if number == 1 else 3]
        boxes = shares * torch.tensor([width, height, width, height])
        masks = noise(len(boxes), height, width, seed=number) > 0
        found.append(Target(boxes, torch.tensor([2, 0, 1])[: len(boxes)], masks))
    return found


def dtype_name(dtype: torch.dtype) -> str:
    """Return a test's label for a precision."""
    return str(dtype).removeprefix("torch.")
