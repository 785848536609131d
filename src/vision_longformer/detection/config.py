"""What a detector is made of, as frozen dataclasses that refuse impossible values when they are built.

The defaults are those of the published runs on COCO. Lists, as YAML has them, are taken for tuples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vision_longformer.fpn.strides import require_strides
from vision_longformer.utils.checks import impossible, is_number, require_integer, require_integers

MOST_DETECTIONS = 1_000_000
MOST_CANDIDATES = 250_000  # boxes of a level; overlaps of many more take minutes
Sizes = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class RetinaNetConfig:
    """RetinaNet (Lin et al., Focal Loss for Dense Object Detection, https://arxiv.org/abs/1708.02002).

    Attributes:
        num_classes: Classes of objects.
        strides: Of the backbone's maps, each twice the one before; two coarser levels are added.
        pyramid_width: Channels of the pyramid.
        head_depth: Convolutions before the last one, in each of the two heads; with 0, `head_width` does nothing.
        head_width: Their channels.
        anchor_sizes: Sides in pixels of the square anchors of each level.
        anchor_ratios: Heights over widths of the anchors.
        score_threshold: Score that detections must pass.
        nms_threshold: Overlap (intersection over union) of two detections of a class, above which the worse one is
            dropped.
        candidates: Best detections of each level that go into that comparison.
        detections: Best ones of an image that are kept.
    """

    num_classes: int
    strides: tuple[int, ...] = (8, 16, 32)
    pyramid_width: int = 256
    head_depth: int = 4
    head_width: int = 256
    anchor_sizes: Sizes = tuple((side, side * 2 ** (1 / 3), side * 2 ** (2 / 3)) for side in (32, 64, 128, 256, 512))
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    candidates: int = 1000
    detections: int = 100

    def __post_init__(self) -> None:
        _make_tuples(self, "strides", "anchor_sizes", "anchor_ratios")
        require_integers(self, "num_classes", "pyramid_width", "head_width", "candidates", "detections")
        require_integers(self, "head_depth", minimum=0)
        require_strides(self.strides)
        _require_anchors(self.anchor_sizes, self.anchor_ratios, levels=len(self.strides) + 2)
        _require_shares(self, "score_threshold", "nms_threshold")

    def with_detections(self, detections: int) -> RetinaNetConfig:
        """Return these settings with another limit of detections.

        With a larger one, as many times more candidates are looked at: few more would pass through else.

        Raises:
            ValueError: It is below 1 or above a million.
        """
        _require_detections(detections)
        return replace(self, detections=detections, candidates=_grown(self.candidates, detections, self.detections))


@dataclass(frozen=True)
class MaskRCNNConfig:
    """Mask R-CNN (He et al., https://arxiv.org/abs/1703.06870) with a feature pyramid.

    Attributes:
        num_classes: Classes of objects.
        strides: Of the backbone's maps, each twice the one before; one coarser level is added for proposals.
        pyramid_width: Channels of the pyramid.
        head_depth: Convolutions of the mask head.
        head_width: Their channels.
        box_head_width: Channels of the two linear layers of the box head.
        anchor_sizes: Sides in pixels of the square anchors of each level.
        anchor_ratios: Heights over widths of the anchors.
        proposal_candidates: Best proposals of each level that are compared with each other, in training and in
            evaluation.
        proposals: Best ones of an image that the heads look at.
        proposal_nms_threshold: Overlap (intersection over union) of two proposals above which the worse one is
            dropped.
        box_size: Side of the square that the box head sees of a proposal, in positions.
        mask_size: Side of the square that the mask head sees; masks are twice as large.
        score_threshold: Score that detections must pass.
        nms_threshold: As `proposal_nms_threshold`, of two detections of a class.
        detections: Best ones of an image that are kept.
    """

    num_classes: int
    strides: tuple[int, ...] = (4, 8, 16, 32)
    pyramid_width: int = 256
    head_depth: int = 4
    head_width: int = 256
    box_head_width: int = 1024
    anchor_sizes: Sizes = ((32,), (64,), (128,), (256,), (512,))
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    proposal_candidates: tuple[int, int] = (2000, 1000)
    proposals: int = 1000
    proposal_nms_threshold: float = 0.7
    box_size: int = 7
    mask_size: int = 14
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    detections: int = 100

    def __post_init__(self) -> None:
        _make_tuples(self, "strides", "anchor_sizes", "anchor_ratios", "proposal_candidates")
        require_integers(self, "num_classes", "pyramid_width", "head_depth", "head_width", "box_head_width")
        require_integers(self, "proposals", "box_size", "mask_size", "detections")
        require_strides(self.strides)
        if any(stride & (stride - 1) for stride in self.strides):
            raise impossible("strides", self.strides, "must be powers of 2")
        _require_anchors(self.anchor_sizes, self.anchor_ratios, levels=len(self.strides) + 1)
        if len(self.proposal_candidates) != 2:
            rule = "must be two numbers, for training and for evaluation"
            raise impossible("proposal_candidates", self.proposal_candidates, rule)
        for number in self.proposal_candidates:
            require_integer("proposal_candidates", number, minimum=1)
        _require_shares(self, "proposal_nms_threshold", "score_threshold", "nms_threshold")

    def with_detections(self, detections: int) -> MaskRCNNConfig:
        """Return these settings with another limit of detections.

        With a larger one, as many times more proposals are looked at: few more would pass through else.

        Raises:
            ValueError: It is below 1 or above a million.
        """
        _require_detections(detections)
        training, evaluation = self.proposal_candidates
        return replace(
            self,
            detections=detections,
            proposals=_grown(self.proposals, detections, self.detections),
            proposal_candidates=(training, _grown(evaluation, detections, self.detections)),
        )


def _require_detections(detections: int) -> None:
    if isinstance(detections, int) and detections > MOST_DETECTIONS:
        raise impossible("detections", detections, f"must be at most {MOST_DETECTIONS:,}")
    require_integer("detections", detections, minimum=1)


def _grown(number: int, detections: int, before: int) -> int:
    """Return a number of boxes that grows as detections do, as long as all can be compared in time; never shrinks."""
    return max(number, min(MOST_CANDIDATES, -(-number * detections // before)))


def _make_tuples(config: object, *fields: str) -> None:
    for field in fields:
        value = getattr(config, field)
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise impossible(field, value, "must be a sequence")
        entries = (tuple(entry) if isinstance(entry, list) else entry for entry in value)
        object.__setattr__(config, field, tuple(entries))


def _require_anchors(sizes: Sizes, ratios: tuple[float, ...], *, levels: int) -> None:
    if len(sizes) != levels or not all(isinstance(level, tuple) and len(level) == len(sizes[0]) > 0 for level in sizes):
        rule = f"must hold {levels} sequences, one for each level of the pyramid, all equally long"
        raise impossible("anchor_sizes", sizes, rule)
    for field, numbers in (("anchor_sizes", [side for level in sizes for side in level]), ("anchor_ratios", ratios)):
        rule = "must be numbers above 0"
        if not numbers:
            raise impossible(field, numbers, rule)
        for number in numbers:
            if not (is_number(number) and number > 0):
                raise impossible(field, number, rule)


def _require_shares(config: object, *fields: str) -> None:
    for field in fields:
        value = getattr(config, field)
        if not (is_number(value) and 0 <= value <= 1):
            raise impossible(field, value, "must be a number from 0 to 1")
