"""Class, box and mask of every proposal: the second step of Mask R-CNN.

R regions, C channels, K classes; s side of a mask

Matching, sampling and post-processing are torchvision's, whose labels are 0 for no object and 1 to K: they are turned
to ours, 0 to K − 1, here and nowhere else. As in the published code, boxes have an L1 loss and mask targets are binary.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads

from vision_longformer.detection.boxes import Detections, LeftOut, Target
from vision_longformer.detection.config import MaskRCNNConfig
from vision_longformer.detection.roi_align import RegionPool, masks_in_boxes
from vision_longformer.padding import Size

AT_ONCE = 1024  # regions of an image that go through the heads: the published settings have no more


class BoxAndMaskHeads(RoIHeads):  # type: ignore[misc]
    """Look at each proposal's square of the pyramid twice: for class and box, then for the mask.

    Attributes:
        limit: Best detections of an image that are kept.
    """

    def __init__(self, config: MaskRCNNConfig) -> None:
        width = config.pyramid_width
        super().__init__(
            RegionPool(config.strides, size=config.box_size),
            TwoMLPHead(width * config.box_size**2, config.box_head_width),
            FastRCNNPredictor(config.box_head_width, config.num_classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=512,
            positive_fraction=0.25,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=config.score_threshold,
            nms_thresh=config.nms_threshold,
            detections_per_img=sys.maxsize,  # `detect` has a limit, and says what it leaves out
            mask_roi_pool=RegionPool(config.strides, size=config.mask_size),
            mask_head=MaskRCNNHeads(width, (config.head_width,) * config.head_depth, dilation=1),
            mask_predictor=MaskRCNNPredictor(config.head_width, config.head_width, config.num_classes),
        )
        self.limit = config.detections
        self._initialise()

    def losses(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Return the losses "classification", "boxes" and "masks" of a random sample of each image's proposals.

        Args:
            maps: (B, C, H, W), extended at padding.
            proposals: (proposals, 4) boxes of each image.
            targets: With masks.
        """
        wanted = [{"boxes": t.boxes, "labels": t.labels + 1, "masks": t.masks} for t in targets]
        regions, matched, labels, wanted_offsets = self.select_training_samples(list(proposals), wanted)
        logits, offsets = self.classify(self.box_roi_pool(maps, regions))
        every_label = torch.cat(labels)
        count = max(len(every_label), 1)
        positive = torch.where(every_label > 0)[0]
        of_class = offsets.unflatten(1, (-1, 4))[positive, every_label[positive]]  # (positive, 4)
        return {
            "classification": F.cross_entropy(logits, every_label, reduction="sum") / count,
            "boxes": F.l1_loss(of_class, torch.cat(wanted_offsets)[positive].to(of_class.dtype), reduction="sum")
            / count,
            "masks": self._mask_loss(maps, regions, matched, labels, targets),
        }

    def detect(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], image_sizes: Sequence[Size]
    ) -> list[Detections]:
        """Return what is found in each image; arguments as for `losses`."""
        images = enumerate(zip(proposals, image_sizes, strict=True))
        return [self._detect([own[number : number + 1] for own in maps], *image) for number, image in images]

    def _detect(self, maps: Sequence[Tensor], proposals: Tensor, size: Size) -> Detections:
        """Return what is found in one image, of which there may be thousands of regions."""
        parts = [self.classify(self.box_roi_pool(maps, [some])) for some in proposals.split(AT_ONCE)]
        logits, offsets = (torch.cat(of_all) for of_all in zip(*parts, strict=True))
        found = self.objects_of(logits, offsets, proposals, size)
        regions = zip(found.boxes.split(AT_ONCE), found.labels.split(AT_ONCE), strict=True)
        masks = [self.draw(self.mask_roi_pool(maps, [boxes]), labels).sigmoid() for boxes, labels in regions]
        return replace(found, masks=torch.cat(masks))

    def objects_of(self, logits: Tensor, offsets: Tensor, proposals: Tensor, size: Size) -> Detections:
        """Return what is found in one image, without masks.

        Args:
            logits: (R, K + 1), see `classify`.
            offsets: (R, 4·(K + 1)).
            proposals: (R, 4).
            size: (height, width) of the image.
        """
        (boxes,), (scores,), (labels,) = self.postprocess_detections(logits, offsets, [proposals], [size])
        shown, limit = labels - 1, self.limit
        left_out = LeftOut(scores[limit:], shown[limit:])
        return Detections(boxes[:limit], scores[:limit], shown[:limit], left_out=left_out)

    def classify(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Return (R, K + 1) logits and (R, 4·(K + 1)) offsets from (R, C, s, s) squares of `box_roi_pool`."""
        logits, offsets = self.box_predictor(self.box_head(pooled))
        return logits.to(pooled.dtype), offsets.to(pooled.dtype)

    def draw(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """Return (R, s, s) logits of the masks of (R,) classes from (R, C, s/2, s/2) squares of `mask_roi_pool`."""
        every = self.mask_predictor(self.mask_head(pooled))  # (R, K, s, s)
        chosen: Tensor = every[torch.arange(len(labels), device=labels.device), labels]
        return chosen.to(pooled.dtype)

    def _mask_loss(
        self,
        maps: Sequence[Tensor],
        regions: Sequence[Tensor],
        matched: Sequence[Tensor],
        labels: Sequence[Tensor],
        targets: Sequence[Target],
    ) -> Tensor:
        chosen = [torch.where(own > 0)[0] for own in labels]
        boxes = [own[index] for own, index in zip(regions, chosen, strict=True)]
        classes = torch.cat([own[index] for own, index in zip(labels, chosen, strict=True)]) - 1
        logits = self.draw(self.mask_roi_pool(maps, boxes), classes)
        shown = []
        for own, numbers, index, target in zip(boxes, matched, chosen, targets, strict=True):
            assert target.masks is not None
            shown.append(masks_in_boxes(target.masks, numbers[index], own, size=logits.shape[-1]))
        wanted = torch.cat(shown).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / max(wanted.numel(), 1)

    def _initialise(self) -> None:
        """Start as the published code does: torchvision leaves the linear layers to PyTorch's default."""
        for layer in (self.box_head.fc6, self.box_head.fc7):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.normal_(self.box_predictor.cls_score.weight, std=0.01)
        nn.init.normal_(self.box_predictor.bbox_pred.weight, std=0.001)
        nn.init.normal_(self.mask_predictor.mask_fcn_logits.weight, std=0.001)
        for module in (self.box_head, self.box_predictor, self.mask_predictor):
            for name, parameter in module.named_parameters():
                if name.endswith("bias"):
                    nn.init.zeros_(parameter)
