"""Semantic segmentation: a class for every pixel.

B images, C channels, H×W image or map, K classes

The head of Kirillov et al., Panoptic Feature Pyramid Networks, https://arxiv.org/abs/1901.02446, section 3: every
level of the pyramid is brought to the finest one in steps of 2, and all are added up. An image's logits do not depend
on its batch, nor on what missing pixels hold: where a map is enlarged, only real positions count, so that its edge is
repeated into what is not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.fpn.features import Features, build_features
from vision_longformer.fpn.pyramid import FeaturePyramid, undecayed
from vision_longformer.padding import Padding, Size, check_batch, find_level_paddings
from vision_longformer.segmentation.config import UNLABELLED, SemanticConfig
from vision_longformer.segmentation.norm import RealGroupNorm

LEAST_WEIGHT = 0.1  # what lies in a real position takes at least a quarter from it; elsewhere results have no meaning


class Branch(nn.Module):
    """Bring one level of a pyramid to the first one: 3×3 convolution, norm, ReLU, twice the size, and again."""

    def __init__(self, config: SemanticConfig, *, doublings: int) -> None:
        super().__init__()
        self.doublings = doublings
        widths = [config.pyramid_width] + [config.head_width] * max(doublings, 1)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False)
            for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(RealGroupNorm(config.norm_groups, config.head_width) for _ in self.convolutions)
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(cast(nn.Conv2d, convolution).weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, paddings: Sequence[Padding], *, sizes: Sequence[Size]) -> Tensor:
        """Turn a (B, C, H, W) map of the last of `paddings` into one of the first.

        Args:
            x: The map.
            paddings: From the first one to that of the map.
            sizes: (height, width) of the batch's map at each of them.
        """
        for step, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            padding = paddings[self.doublings - step]
            x = F.relu(norm(convolution(padding.clean_planes(x)), padding))
            if self.doublings:
                x = enlarge(x, 2, padding.valid, size=sizes[self.doublings - step - 1])
        return x


class SemanticFPN(nn.Module):
    """Classify every pixel of images of any size.

    Images are a padded, normalised batch (B, 3, H, W); `image_sizes`, one (height, width) for each, says which top
    left part is real. Nothing is resized.

    Args:
        features: A backbone with maps of `config.strides`.
        config: What to build on it.
    """

    class_weights: Tensor | None

    def __init__(self, features: Features, config: SemanticConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = FeaturePyramid(features, width=config.pyramid_width, top="none")
        self.branches = nn.ModuleList(Branch(config, doublings=number) for number in range(len(config.strides)))
        self.predictor = nn.Conv2d(config.head_width, config.num_classes, kernel_size=1)
        nn.init.normal_(self.predictor.weight, std=0.01)  # all classes are about equally likely at the start
        nn.init.zeros_(cast(Tensor, self.predictor.bias))
        self.register_buffer("class_weights", None, persistent=False)

    def weigh_classes(self, weights: Sequence[float]) -> None:
        """Weigh pixels in the loss by their class. Weights are no part of the model's state.

        Args:
            weights: (K,), none below 0.

        Raises:
            ValueError: There is not one for each class.
        """
        if len(weights) != self.config.num_classes:
            raise ValueError(f"{len(weights)} weights for {self.config.num_classes} classes")
        self.class_weights = torch.tensor(weights, dtype=torch.float32, device=self.predictor.weight.device)

    def forward(
        self, images: Tensor, image_sizes: Sequence[Size] | Tensor | None, targets: Tensor
    ) -> dict[str, Tensor]:
        """Return the loss "cross_entropy", a mean over the real pixels of the batch, weighted by their classes.

        Args:
            images: (B, 3, H, W).
            image_sizes: (height, width) of the real part of each.
            targets: (B, H, W) class numbers, or `config.ignored_label` or `UNLABELLED`, of which no loss is taken; what
                they hold at padding does not matter.

        Raises:
            ValueError: Images, sizes and targets do not fit each other.
        """
        logits, pixels = self._classify(images, image_sizes)
        labels = self._check(targets, pixels, logits=logits)
        weights = self.class_weights
        total = F.cross_entropy(logits, labels, weight=weights, ignore_index=UNLABELLED, reduction="sum")
        known = labels != UNLABELLED
        if weights is None:
            return {"cross_entropy": total / known.sum().clamp(min=1)}
        weight = weights[labels[known]].sum()
        return {"cross_entropy": total / weight.clamp(min=torch.finfo(weight.dtype).tiny)}

    def logits(
        self,
        images: Tensor,
        image_sizes: Sequence[Size] | Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Return (B, K, H, W) logits, zero at padding.

        Args:
            images: (B, 3, H, W).
            image_sizes: (height, width) of the real part of each.
            valid: (B, H, W) booleans, false where a pixel is missing: nothing sees it.

        Raises:
            ValueError: Images, sizes and mask do not fit each other.
        """
        logits, pixels = self._classify(images, image_sizes, valid)
        return pixels.clean_planes(logits)

    def count_memory(self, images: Tensor, size: Size, live: Callable[[], int]) -> int:
        """Run, and return the bytes that are held at most from there on."""
        logits = self.logits(images)
        del images
        logits.argmax(dim=1)
        return live()

    def no_weight_decay(self) -> set[str]:
        """Return the names of position tables and global tokens."""
        return undecayed(self.backbone)

    def _classify(
        self, images: Tensor, image_sizes: Sequence[Size] | Tensor | None, valid: Tensor | None = None
    ) -> tuple[Tensor, Padding]:
        """Return (B, K, H, W) logits, without meaning at padding, and what of them is real."""
        sizes = check_batch(images, image_sizes)
        maps, paddings = self.backbone(images, sizes, valid)
        map_sizes = [(x.shape[2], x.shape[3]) for x in maps]
        x = sum(branch(x, paddings, sizes=map_sizes) for branch, x in zip(self.branches, maps, strict=True))
        size = (images.shape[2], images.shape[3])
        (pixels,) = find_level_paddings(sizes, [1], batch_size=size, device=images.device, valid=valid)
        logits = enlarge(self.predictor(x), self.config.strides[0], paddings[0].valid, size=size)
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits, pixels

    def _check(self, targets: Tensor, pixels: Padding, *, logits: Tensor) -> Tensor:
        """Return (B, H, W) labels, `UNLABELLED` at padding and where the settings say that labels are ignored."""
        batch, classes, height, width = logits.shape
        if targets.shape != (batch, height, width) or targets.is_floating_point():
            raise ValueError(
                f"targets: expected class numbers of shape {(batch, height, width)}, got {targets.dtype} of shape "
                f"{tuple(targets.shape)}"
            )
        ignored = self.config.ignored_label
        labels = targets.to(device=logits.device, dtype=torch.int64)
        if pixels.valid is not None:
            labels = torch.where(pixels.valid, labels, UNLABELLED)
        if ignored is not None:
            labels = torch.where(labels == ignored, UNLABELLED, labels)
        wrong = (labels != UNLABELLED) & ((labels < 0) | (labels >= classes))
        if bool(wrong.any()):
            image, row, column = wrong.nonzero()[0].tolist()
            rest = "" if ignored is None else f", or {ignored} to be ignored"
            raise ValueError(
                f"targets[{image}, {row}, {column}]={int(labels[image, row, column])}: must be a class number from 0 "
                f"to {classes - 1}{rest}"
            )
        return labels


def enlarge(x: Tensor, factor: int, valid: Tensor | None = None, *, size: Size) -> Tensor:
    """Enlarge a (B, C, H, W) map by a whole factor, and crop it to (height, width) `size`.

    The factor is never that of two sizes, which would change with the batch. Of what lies around a new position, only
    what is real counts: its weights sum to 1. So beyond its edge a map is repeated, as it is where it ends.

    Args:
        x: The map.
        factor: By which it becomes larger.
        valid: (B, H, W) booleans, true where a position is real; None where all are.
        size: Of the result.
    """
    if valid is None:
        return _interpolate(x, factor, size)
    weights = _interpolate(valid[:, None].to(x.dtype), factor, size)
    return _interpolate(torch.where(valid[:, None], x, 0), factor, size) / weights.clamp(min=LEAST_WEIGHT)


def _interpolate(x: Tensor, factor: int, size: Size) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)[:, :, : size[0], : size[1]]


def build_semantic_fpn(
    backbone: str | nn.Module, *, num_classes: int, backbone_options: Mapping[str, Any] | None = None, **settings: Any
) -> SemanticFPN:
    """Build a semantic segmentation model, untrained.

    Args:
        backbone: See `fpn.features.build_features`.
        num_classes: Classes of pixels.
        backbone_options: Further options of a backbone given by name, such as {"drop_path_rate": 0.1}.
        **settings: Fields of `SemanticConfig`.

    Raises:
        ValueError: There is no such backbone, or a setting has an impossible value.
        TypeError: There is no such setting.
    """
    config = SemanticConfig(num_classes, **settings)
    return SemanticFPN(build_features(backbone, config.strides, options=backbone_options), config)
