"""The objective of classification: cross-entropy, with Mixup, CutMix and label smoothing.

B images, C classes
"""

from __future__ import annotations

import torch
from timm.data import Mixup
from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.datasets.loaders import Batch
from vision_longformer.datasets.normalising import images_of
from vision_longformer.datasets.options import AugmentationOptions
from vision_longformer.training.config import OptimizerOptions


class Objective:
    """The loss of a batch, summed over its images."""

    def __init__(self, augmentation: AugmentationOptions, optimizer: OptimizerOptions, *, num_classes: int) -> None:
        self.num_classes = num_classes
        self.smoothing = optimizer.label_smoothing
        self.mix: Mixup | None = None
        if augmentation.mixup or augmentation.cutmix:
            self.mix = Mixup(
                mixup_alpha=augmentation.mixup,
                cutmix_alpha=augmentation.cutmix,
                switch_prob=augmentation.switch,
                label_smoothing=optimizer.label_smoothing,
                num_classes=num_classes,
            )

    def __call__(self, model: nn.Module, batch: Batch, *, device: torch.device) -> Tensor:
        """Return the sum over the images of a batch of their cross-entropy."""
        images, targets = self._mixed(images_of(batch, device), batch.labels.to(device, non_blocking=True))
        return F.cross_entropy(model(images).float(), targets, reduction="sum")

    def _mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return images and their (B, C) targets. Pairs are mixed; the last of an odd number stays as it is."""
        low = self.smoothing / self.num_classes
        targets = F.one_hot(labels, self.num_classes).to(images.dtype) * (1 - self.smoothing) + low
        paired = len(images) // 2 * 2
        if self.mix is None or paired == 0:
            return images, targets
        mixed, mixed_targets = self.mix(images[:paired].clone(), labels[:paired])
        return torch.cat([mixed, images[paired:]]), torch.cat([mixed_targets.to(targets.dtype), targets[paired:]])
