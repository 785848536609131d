"""Mask R-CNN: proposals first, then a class, a box and a mask for each.

It is composed from torchvision's parts, with the settings of the published code (Detectron2): 1,000 proposals in
training and evaluation, regions aligned to the centres of positions and sampled as densely as they are large, L1
losses of boxes, binary mask targets, initialisation. Differences that remain, none of which changes what is computed
for COCO-sized images by more than rounding or a constant factor:

- Losses of proposals are divided by the number of anchors sampled, which is 256 for an image unless it is tiny, where
  Detectron2 always divides by 256.
- Proposals thinner than 0.001 pixels and detections thinner than 0.01 are dropped, where Detectron2 drops empty ones.
- The box predictor has an unused output for the box of "no object".
- Mask targets are cut out of binary masks, where Detectron2 draws polygons directly at the mask's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vision_longformer.detection.boxes import Detections, Target, check_targets
from vision_longformer.detection.config import MaskRCNNConfig
from vision_longformer.detection.proposals import ProposalNetwork
from vision_longformer.detection.roi_heads import AT_ONCE, BoxAndMaskHeads
from vision_longformer.fpn.features import Features
from vision_longformer.fpn.pyramid import FeaturePyramid, undecayed
from vision_longformer.padding import Padding, Size, check_batch

FLOAT_BYTES = 4


class MaskRCNN(nn.Module):
    """Detect and outline objects in images of any size; an image's detections do not depend on its batch.

    Images are a padded, normalised batch (B, 3, H, W); `image_sizes`, one (height, width) for each, says which top
    left part is real. Nothing is resized.

    Args:
        features: A backbone with maps of `config.strides`.
        config: What to build on it.
    """

    def __init__(self, features: Features, config: MaskRCNNConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = FeaturePyramid(features, width=config.pyramid_width, top="subsampled")
        self.rpn = ProposalNetwork(config)
        self.roi_heads = BoxAndMaskHeads(config)

    def forward(
        self, images: Tensor, image_sizes: Sequence[Size] | Tensor | None, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Return the losses "proposals", "proposal_boxes", "classification", "boxes" and "masks".

        Raises:
            ValueError: Images, sizes and targets do not fit each other.
        """
        sizes = check_batch(images, image_sizes)
        checked = check_targets(targets, sizes, num_classes=self.config.num_classes, masks=True, like=images)
        maps, paddings = self.backbone(images, sizes)
        candidates = self.rpn(maps, paddings, image_sizes=sizes, strides=self.backbone.strides)
        proposals = self.rpn.propose(candidates, sizes)
        return {
            **self.rpn.losses(candidates, checked),
            **self.roi_heads.losses(self._extended(maps, paddings), proposals, checked),
        }

    @torch.no_grad()
    def detect(self, images: Tensor, image_sizes: Sequence[Size] | Tensor | None = None) -> list[Detections]:
        """Return what is found in each image.

        Raises:
            ValueError: Images and sizes do not fit each other.
        """
        sizes = check_batch(images, image_sizes)
        maps, paddings = self.backbone(images, sizes)
        candidates = self.rpn(maps, paddings, image_sizes=sizes, strides=self.backbone.strides)
        proposals = self.rpn.propose(candidates, sizes)
        return self.roi_heads.detect(self._extended(maps, paddings), proposals, sizes)

    def count_memory(self, images: Tensor, size: Size, live: Callable[[], int]) -> int:
        """Run as far as sizes are known, and return the bytes that are held at most from there on."""
        maps, paddings = self.backbone(images, (size,))
        (candidates,) = self.rpn(maps, paddings, image_sizes=(size,), strides=self.backbone.strides)
        self.rpn.box_coder.decode_single(candidates.offsets, candidates.anchors)
        del candidates
        return live() + self._bytes_of_regions()

    def _bytes_of_regions(self) -> int:
        """Return what the second step takes: of some regions at once, and what is known of all."""
        config = self.config
        proposals, detections = min(AT_ONCE, config.proposals), min(AT_ONCE, config.detections)
        # of each region: two pooled squares, as one is a copy with more filled in, and what is filled in
        boxes = proposals * 3 * config.pyramid_width * config.box_size**2
        widest = max(3 * config.pyramid_width, config.pyramid_width + config.head_width, 2 * config.head_width)
        doubled = 4 * (2 * config.head_width + config.num_classes)
        masks = detections * max(widest, config.head_width + doubled) * config.mask_size**2
        of_all = config.proposals * 30 * (config.num_classes + 1) + config.detections * 3 * (2 * config.mask_size) ** 2
        return FLOAT_BYTES * (max(boxes, masks) + of_all)

    def set_detections(self, detections: int) -> None:
        """Change how many objects are given of an image at most: see its configuration's `with_detections`.

        Raises:
            ValueError: It is below 1 or above a million.
        """
        self.set_limits(self.config.with_detections(detections))

    def set_limits(self, config: MaskRCNNConfig) -> None:
        """Take the limits of detections and proposals from other settings, which must else be the same."""
        self.config = config
        self.rpn.set_proposals(self.config)
        self.roi_heads.limit = self.config.detections

    def no_weight_decay(self) -> set[str]:
        """Return the names of position tables and global tokens."""
        return undecayed(self.backbone)

    def _extended(self, maps: Sequence[Tensor], paddings: Sequence[Padding]) -> list[Tensor]:
        """Return the maps that regions are cut out of: at the edge, sampling reads one position beyond it."""
        count = len(self.config.strides)
        return [padding.extend_planes(x) for x, padding in zip(maps[:count], paddings[:count], strict=True)]
