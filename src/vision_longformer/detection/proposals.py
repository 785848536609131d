"""Boxes that may hold an object: the first step of Mask R-CNN.

B images, C channels, H×W map, A anchors of a position

Matching, sampling and selection are torchvision's; the L1 loss is that of the published code, where torchvision has a
smooth one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from vision_longformer.detection.anchors import Anchors, rows_of_image
from vision_longformer.detection.boxes import Target
from vision_longformer.detection.config import MaskRCNNConfig
from vision_longformer.padding import Padding, Size, size_at


@dataclass(frozen=True)
class Candidates:
    """What the network says of the anchors of one image.

    Attributes:
        logits: (anchors,) of holding an object.
        offsets: (anchors, 4) from anchor to box.
        anchors: (anchors, 4), level by level.
        counts: Anchors of each level.
    """

    logits: Tensor
    offsets: Tensor
    anchors: Tensor
    counts: list[int]


class ProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]
    """Score every anchor, and propose the best boxes of each image."""

    def __init__(self, config: MaskRCNNConfig) -> None:
        anchors = Anchors(config.anchor_sizes, config.anchor_ratios)
        training, testing = config.proposal_candidates
        super().__init__(
            anchors,
            RPNHead(config.pyramid_width, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": training, "testing": testing},
            post_nms_top_n={"training": config.proposals, "testing": config.proposals},
            nms_thresh=config.proposal_nms_threshold,
        )

    def set_proposals(self, config: MaskRCNNConfig) -> None:
        """Change how many boxes are proposed in evaluation; training stays as it was."""
        self._pre_nms_top_n["testing"] = config.proposal_candidates[1]
        self._post_nms_top_n["testing"] = config.proposals

    def forward(
        self,
        maps: Sequence[Tensor],
        paddings: Sequence[Padding],
        *,
        image_sizes: Sequence[Size],
        strides: Sequence[int],
    ) -> list[Candidates]:
        """Return what is said of each image's anchors, from a (B, C, H, W) map of each stride."""
        logits, offsets = [], []
        for level_map, padding in zip(maps, paddings, strict=True):
            x = level_map
            for convolution in self.head.conv:
                x = convolution(padding.clean_planes(x))
            logits.append(self.head.cls_logits(x))
            offsets.append(self.head.bbox_pred(x))
        return [
            self._candidates(number, logits, offsets, size=size, strides=strides)
            for number, size in enumerate(image_sizes)
        ]

    def propose(self, candidates: Sequence[Candidates], image_sizes: Sequence[Size]) -> list[Tensor]:
        """Return (proposals, 4) boxes for each image; no gradient goes through them."""
        proposals = []
        for image, size in zip(candidates, image_sizes, strict=True):
            boxes = self.box_coder.decode_single(image.offsets.detach(), image.anchors)
            (kept,), _ = self.filter_proposals(boxes[None], image.logits[None], [size], image.counts)
            proposals.append(kept)
        return proposals

    def losses(self, candidates: Sequence[Candidates], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the losses "proposals" and "proposal_boxes" of a random sample of each image's anchors."""
        anchors = [image.anchors for image in candidates]
        labels, matched = self.assign_targets_to_anchors(anchors, [{"boxes": target.boxes} for target in targets])
        positive, negative = (torch.cat(chosen) > 0 for chosen in self.fg_bg_sampler(labels))
        sampled = positive | negative
        count = sampled.sum().clamp(min=1)
        logits = torch.cat([image.logits for image in candidates])
        offsets = torch.cat([image.offsets for image in candidates])
        wanted = self.box_coder.encode_single(torch.cat(matched)[positive], torch.cat(anchors)[positive])
        is_object = torch.cat(labels)[sampled].to(logits.dtype)
        return {
            "proposals": F.binary_cross_entropy_with_logits(logits[sampled], is_object, reduction="sum") / count,
            "proposal_boxes": F.l1_loss(offsets[positive], wanted.to(offsets.dtype), reduction="sum") / count,
        }

    def _candidates(
        self, number: int, logits: Sequence[Tensor], offsets: Sequence[Tensor], *, size: Size, strides: Sequence[int]
    ) -> Candidates:
        sizes = [size_at(size, stride) for stride in strides]
        own_logits = [
            rows_of_image(x, number, own, width=1)[:, 0] for x, own in zip(logits, sizes, strict=True)
        ]  # (H×W×A,) each
        own_offsets = [rows_of_image(x, number, own, width=4) for x, own in zip(offsets, sizes, strict=True)]
        anchors = self.anchor_generator.of_image(size, strides, like=own_offsets[0])
        return Candidates(
            logits=torch.cat(own_logits),
            offsets=torch.cat(own_offsets),
            anchors=torch.cat(anchors),
            counts=[len(boxes) for boxes in anchors],
        )
