"""RetinaNet: a class and a box for every anchor, in one step.

B images, C channels, H×W map, A anchors of a position, K classes

Matching, losses and the coding of boxes are torchvision's, which goes image by image; of equal logits the first
place wins (see `candidates`). Differences from the published code (Detectron2) that remain:

- The losses of an image are divided by its number of matched anchors, where Detectron2 divides those of the batch by a
  moving average of that number.
- Boxes are cut off at the edges of the image before overlapping ones are dropped, where Detectron2 does so after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.retinanet import (
    RetinaNetClassificationHead,
    RetinaNetHead,
    RetinaNetRegressionHead,
)
from torchvision.ops import batched_nms, clip_boxes_to_image

from vision_longformer.detection.anchors import Anchors, rows_of_image
from vision_longformer.detection.boxes import Detections, LeftOut, Target, check_targets
from vision_longformer.detection.candidates import Candidates, choose
from vision_longformer.detection.config import RetinaNetConfig
from vision_longformer.fpn.features import Features
from vision_longformer.fpn.pyramid import FeaturePyramid, undecayed
from vision_longformer.padding import Padding, Size, check_batch, size_at

# Of each score of a level: itself and whether it passes the threshold; of those that pass, also a copy, its place, and
# both again while they are sorted.
SCORE_BYTES, PASSING_BYTES = 4 + 1, 4 + 8 + 16
# Of a trained detector's scores, which are those of every class at every anchor, far fewer pass; all do if nothing is
# asked of them.
PASSING_SHARE, LEAST_THRESHOLD = 0.1, 0.02


class RetinaNet(TorchvisionRetinaNet):  # type: ignore[misc]
    """Detect objects in images of any size; an image's detections do not depend on its batch.

    Images are a padded, normalised batch (B, 3, H, W); `image_sizes`, one (height, width) for each, says which top
    left part is real. Nothing is resized.

    Args:
        features: A backbone with maps of `config.strides`.
        config: What to build on it.
    """

    def __init__(self, features: Features, config: RetinaNetConfig) -> None:
        anchors = Anchors(config.anchor_sizes, config.anchor_ratios)
        backbone = FeaturePyramid(features, width=config.pyramid_width, top="convolutions")
        super().__init__(
            backbone,
            anchor_generator=anchors,
            head=Head(config, num_anchors=anchors.num_anchors_per_location()[0]),
            num_classes=config.num_classes,
            score_thresh=config.score_threshold,
            nms_thresh=config.nms_threshold,
            detections_per_img=config.detections,
            topk_candidates=config.candidates,
        )
        del self.transform  # it would resize
        self.config = config

    def forward(
        self, images: Tensor, image_sizes: Sequence[Size] | Tensor | None, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Return the losses "classification" and "boxes", means over the images.

        Raises:
            ValueError: Images, sizes and targets do not fit each other.
        """
        sizes = check_batch(images, image_sizes)
        checked = check_targets(targets, sizes, num_classes=self.config.num_classes, masks=False, like=images)
        predictions = [_join(levels) for levels in self._predict(images, sizes)]
        losses = self.compute_loss(
            [{"boxes": target.boxes, "labels": target.labels} for target in checked],
            {
                "cls_logits": [logits for logits, _, _ in predictions],
                "bbox_regression": [offsets for _, offsets, _ in predictions],
            },
            [anchors for _, _, anchors in predictions],
        )
        return {"classification": losses["classification"], "boxes": losses["bbox_regression"]}

    @torch.no_grad()
    def detect(self, images: Tensor, image_sizes: Sequence[Size] | Tensor | None = None) -> list[Detections]:
        """Return what is found in each image.

        Raises:
            ValueError: Images and sizes do not fit each other.
        """
        sizes = check_batch(images, image_sizes)
        return [
            self.objects_of([self._best_of(*level) for level in levels], size)
            for size, levels in zip(sizes, self._predict(images, sizes), strict=True)
        ]

    def choose(self, logits: Tensor, offsets: Tensor, *, first: int = 0) -> Candidates:
        """Return the best candidates of some rows of a level: see `candidates.choose`."""
        return choose(logits, offsets, first=first, threshold=self.score_thresh, limit=self.topk_candidates)

    def objects_of(self, levels: Sequence[tuple[Candidates, Tensor]], size: Size) -> Detections:
        """Return what is found in an image.

        Args:
            levels: The best candidates of each level, and their (n, 4) anchors.
            size: (height, width) of the image in pixels.
        """
        boxes = torch.cat([self.box_coder.decode_single(found.offsets, anchors) for found, anchors in levels])
        boxes = clip_boxes_to_image(boxes, size)
        scores = torch.cat([found.logits for found, _ in levels]).sigmoid()
        labels = torch.cat([found.places % self.config.num_classes for found, _ in levels])
        kept = batched_nms(boxes, scores, labels, self.nms_thresh)
        inside = (boxes[kept, 2:] > boxes[kept, :2]).all(dim=1)  # the rest is cut off at the edges
        kept, beyond = kept[inside].tensor_split([self.detections_per_img])
        return Detections(boxes[kept], scores[kept], labels[kept], left_out=LeftOut(scores[beyond], labels[beyond]))

    def _best_of(self, logits: Tensor, offsets: Tensor, anchors: Tensor) -> tuple[Candidates, Tensor]:
        found = self.choose(logits, offsets)
        return found, anchors[found.places // self.config.num_classes]

    def count_memory(self, images: Tensor, size: Size, live: Callable[[], int]) -> int:
        """Run as far as sizes are known, and return the bytes that are held at most from there on."""
        (levels,) = self._predict(images, (size,))
        largest = max(logits.numel() for logits, _, _ in levels)
        passing = PASSING_SHARE if self.config.score_threshold >= LEAST_THRESHOLD else 1.0
        return live() + round((SCORE_BYTES + passing * PASSING_BYTES) * largest)

    def set_detections(self, detections: int) -> None:
        """Change how many objects are given of an image at most: see its configuration's `with_detections`.

        Raises:
            ValueError: It is below 1 or above a million.
        """
        self.set_limits(self.config.with_detections(detections))

    def set_limits(self, config: RetinaNetConfig) -> None:
        """Take the limits of detections and candidates from other settings, which must else be the same."""
        self.config = config
        self.detections_per_img, self.topk_candidates = self.config.detections, self.config.candidates

    def no_weight_decay(self) -> set[str]:
        """Return the names of position tables and global tokens."""
        return undecayed(self.backbone)

    def _predict(self, images: Tensor, sizes: tuple[Size, ...]) -> list[list[tuple[Tensor, Tensor, Tensor]]]:
        """Return (H×W×A, K) logits, (H×W×A, 4) offsets and (H×W×A, 4) anchors for each level of each image."""
        maps, paddings = self.backbone(images, sizes)
        logits, offsets = self.head(maps, paddings)
        images_of_batch = []
        for number, size in enumerate(sizes):
            own_sizes = [size_at(size, stride) for stride in self.backbone.strides]
            rows = [
                (
                    rows_of_image(level_logits, number, own, width=self.config.num_classes),
                    rows_of_image(level_offsets, number, own, width=4),
                )
                for level_logits, level_offsets, own in zip(logits, offsets, own_sizes, strict=True)
            ]
            anchors = self.anchor_generator.of_image(size, self.backbone.strides, like=rows[0][0])
            images_of_batch.append([(*row, boxes) for row, boxes in zip(rows, anchors, strict=True)])
        return images_of_batch


class Head(RetinaNetHead):  # type: ignore[misc]
    """Two towers of convolutions, shared by all levels."""

    def __init__(self, config: RetinaNetConfig, *, num_anchors: int) -> None:
        width = config.head_width if config.head_depth else config.pyramid_width
        super().__init__(width, num_anchors, config.num_classes)
        for head in (self.classification_head, self.regression_head):
            head.conv = _tower(config)

    def forward(self, maps: Sequence[Tensor], paddings: Sequence[Padding]) -> tuple[list[Tensor], list[Tensor]]:
        """Return (B, A×K, H, W) logits and (B, A×4, H, W) offsets for each level."""
        return (
            [_run(self.classification_head, x, padding) for x, padding in zip(maps, paddings, strict=True)],
            [_run(self.regression_head, x, padding) for x, padding in zip(maps, paddings, strict=True)],
        )


def _run(head: RetinaNetClassificationHead | RetinaNetRegressionHead, x: Tensor, padding: Padding) -> Tensor:
    for convolution in head.conv:
        x = F.relu(convolution(padding.clean_planes(x)))
    last = head.cls_logits if isinstance(head, RetinaNetClassificationHead) else head.bbox_reg
    return cast(Tensor, last(padding.clean_planes(x)))


def _tower(config: RetinaNetConfig) -> nn.ModuleList:
    tower, width = nn.ModuleList(), config.pyramid_width
    for _ in range(config.head_depth):
        convolution = nn.Conv2d(width, config.head_width, kernel_size=3, padding=1)
        nn.init.normal_(convolution.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, convolution.bias))
        tower.append(nn.Sequential(convolution))  # named as torchvision's, which else renames weights in loading
        width = config.head_width
    return tower


def _join(levels: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(tensors) for tensors in zip(*levels, strict=True))
