"""RetinaNet and Mask R-CNN: what they learn, labels, empty images, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from detection.cases import (
    BACKBONE,
    DETECTORS,
    MASK_RCNN,
    RETINANET,
    SIZES,
    backbone,
    batch_of,
    images,
    mask_rcnn,
    targets,
)
from model_helpers import noise
from vision_longformer import VisionLongformer
from vision_longformer.detection import MaskRCNNConfig, RetinaNetConfig, Target, build_mask_rcnn, build_retinanet

EMPTY = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 37, 50, dtype=torch.bool))


def rectangles() -> tuple[Tensor, Target]:
    """Return a noisy (1, 3, 64, 96) image with a bright wide, a dark tall and a bright small rectangle."""
    image = noise(1, 3, 64, 96, dtype=torch.float32) * 0.1
    boxes = torch.tensor([[8.0, 30, 60, 55], [66, 5, 90, 61], [20, 4, 36, 20]])
    masks = torch.zeros(3, 64, 96, dtype=torch.bool)
    for mask, (x1, y1, x2, y2), value in zip(masks, boxes.int().tolist(), (2.0, -2.0, 2.0), strict=True):
        mask[y1:y2, x1:x2] = True
        image[0, :, y1:y2, x1:x2] += value
    return image, Target(boxes, torch.tensor([1, 0, 2]), masks)


LEARNERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "retinanet": (build_retinanet, {"strides": (8, 16), "anchor_sizes": ((16, 24), (32, 48), (64, 96), (128, 160))}),
    "mask_rcnn": (
        build_mask_rcnn,
        {
            "strides": (4, 8, 16),
            "anchor_sizes": ((16,), (32,), (64,), (128,)),
            "box_head_width": 48,
            "proposals": 30,
        },
    ),
}


LEARNING_STEPS = 120
# What goes into the choice of 3 detections.
FEW: dict[str, dict[str, Any]] = {
    "retinanet": {"candidates": 10},
    "mask_rcnn": {"proposals": 10, "proposal_candidates": (10, 10)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_one_image_is_learned(name: str) -> None:
    """Boxes, anchors, masks and labels mean the same in training and in use."""
    build, settings = LEARNERS[name]
    model = build(VisionLongformer(BACKBONE), num_classes=3, pyramid_width=24, head_width=24, head_depth=1, **settings)
    image, target = rectangles()
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    for step in range(LEARNING_STEPS):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / LEARNING_STEPS)  # so that it ends at rest
        optimizer.zero_grad()
        torch.stack(list(model(image, None, [target]).values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    (found,) = model.eval().detect(image)
    overlaps = box_iou(target.boxes, found.boxes[:3])
    best = overlaps.argmax(dim=1)
    assert sorted(best.tolist()) == [0, 1, 2]
    assert overlaps.amax(dim=1).min() > 0.6
    assert found.labels[best].tolist() == target.labels.tolist()
    assert found.scores[2] > 0.5
    if found.masks is not None:
        assert (found.masks[:3] > 0.5).float().mean() > 0.8


@pytest.mark.parametrize("name", DETECTORS)
def test_an_image_without_objects(name: str) -> None:
    """Its boxes have no loss; that no anchor holds anything is learned, and gradients are finite and not None."""
    model = DETECTORS[name]().train()
    losses = model(noise(1, 3, 37, 50), None, [EMPTY])
    torch.stack(list(losses.values())).sum().backward()
    nothing = {"retinanet": {"boxes"}, "mask_rcnn": {"proposal_boxes", "boxes", "masks"}}[name]
    for key, loss in losses.items():
        assert (loss == 0) == (key in nothing)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_no_proposals_at_all() -> None:
    """Neither in use nor in training without objects does anything fail or become NaN."""
    model = mask_rcnn().train()
    model.rpn.min_size = 1e9  # all proposals are too small
    losses = model(batch_of([noise(3, 37, 50), noise(3, 37, 50)]), None, [EMPTY, EMPTY])
    torch.stack(list(losses.values())).sum().backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    found, other = model.eval().detect(batch_of(images(SIZES[:2])), SIZES[:2])
    assert found.boxes.shape == other.boxes.shape == (0, 4)
    assert found.masks is not None
    assert found.masks.shape == (0, 12, 12)


@pytest.mark.parametrize("name", DETECTORS)
def test_nothing_found(name: str) -> None:
    for found in DETECTORS[name](score_threshold=1.0).detect(batch_of(images()), SIZES):
        assert found.boxes.shape == (0, 4)
        assert found.scores.shape == found.labels.shape == (0,)


@pytest.mark.parametrize("name", DETECTORS)
def test_settings_reach_the_detector(name: str) -> None:
    model = DETECTORS[name](detections=7, score_threshold=0.2, nms_threshold=0.9)
    found = model.detect(images()[0][None])[0]
    assert len(found.boxes) == 7
    assert found.scores.min() > 0.2
    fewer = DETECTORS[name](nms_threshold=0.0).detect(images()[0][None])[0]
    for label in fewer.labels.unique():
        boxes = fewer.boxes[fewer.labels == label]
        corners = torch.minimum(boxes[:, None, 2:], boxes[:, 2:]) - torch.maximum(boxes[:, None, :2], boxes[:, :2])
        overlaps = corners.clamp(min=0).prod(dim=2)
        assert torch.equal(overlaps > 0, torch.eye(len(boxes), dtype=torch.bool))


@pytest.mark.parametrize("name", DETECTORS)
def test_a_limit_says_what_it_leaves_out(name: str) -> None:
    """What is left out and what is given are together what a detector without a limit gives."""
    image = images()[0][None]
    everything = DETECTORS[name](detections=5000).detect(image)[0]
    assert everything.left_out.count() == 0
    found = DETECTORS[name](detections=7).detect(image)[0]
    assert torch.equal(found.boxes, everything.boxes[:7])
    assert torch.equal(found.left_out.scores, everything.scores[7:])
    assert torch.equal(found.left_out.labels, everything.labels[7:])
    middle = float(everything.scores[len(everything.scores) // 2])
    wanted = (everything.scores[7:] >= middle) & (everything.labels[7:] != 1)
    assert 0 < found.left_out.count(min_score=middle, classes={0, 2}) == int(wanted.sum()) < len(wanted)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_limit_can_be_changed(name: str) -> None:
    """Up to many more than go into the choice by default."""
    image = images()[0][None]
    model = DETECTORS[name](detections=3, score_threshold=0.0, **FEW[name])
    least = len(model.detect(image)[0].boxes)
    model.set_detections(300)
    more = model.detect(image)[0]
    assert least == 3
    assert len(more.boxes) == 300
    assert model.config.detections == 300
    model.set_detections(2)
    assert torch.equal(model.detect(image)[0].boxes, more.boxes[:2])
    with pytest.raises(ValueError, match="detections=0: must be an integer of at least 1"):
        model.set_detections(0)


@pytest.mark.parametrize("name", DETECTORS)
def test_boxes_are_never_in_half_precision(name: str) -> None:
    """In which those of large images would be pixels off."""
    model = DETECTORS[name](torch.float32, score_threshold=0.0)
    image = images(dtype=torch.float32)[0][None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = model.detect(image)
        losses = model(image, None, [targets()[0]])
    assert found.boxes.dtype == torch.float32
    assert (found.boxes != found.boxes.bfloat16()).float().mean() > 0.3  # the rest lie on the image's edges
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("name", DETECTORS)
def test_weight_decay_spares_position_tables_and_global_tokens(name: str) -> None:
    model = DETECTORS[name]()
    parameters = dict(model.named_parameters())
    names = model.no_weight_decay()
    assert {"backbone.features.model.stages.0.patch_embed.global_tokens"} < names < set(parameters)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_configuration_names_what_is_wrong(name: str) -> None:
    kind: Any = RetinaNetConfig if name == "retinanet" else MaskRCNNConfig
    as_in_yaml = kind(2, strides=list(kind(2).strides), anchor_sizes=[list(sides) for sides in kind(2).anchor_sizes])
    assert as_in_yaml == kind(2)
    for change, message in (
        ({"num_classes": 0}, "num_classes=0: must be an integer of at least 1"),
        ({"pyramid_width": 1.5}, r"pyramid_width=1.5: must be an integer of at least 1"),
        ({"strides": (4, 16)}, r"strides=\(4, 16\): each must be twice the one before"),
        ({"strides": ()}, r"strides=\(\): must hold at least one"),
        ({"anchor_sizes": ((32,), (64,))}, r"anchor_sizes=\(\(32,\), \(64,\)\): must hold 5 sequences"),
        (
            {"anchor_sizes": ((32,), (64,), (9,), (9,), (0,))},
            "anchor_sizes=0: must be numbers above 0",
        ),
        ({"anchor_ratios": (-1,)}, "anchor_ratios=-1: must be numbers above 0"),
        ({"anchor_ratios": ()}, r"anchor_ratios=\(\): must be numbers above 0"),
        ({"score_threshold": 1.2}, "score_threshold=1.2: must be a number from 0 to 1"),
        ({"nms_threshold": True}, "nms_threshold=True: must be a number from 0 to 1"),
        ({"detections": 0}, "detections=0: must be an integer of at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            kind(**{"num_classes": 2, **change})
    if name == "mask_rcnn":
        with pytest.raises(ValueError, match=r"strides=\(3, 6, 12, 24\): must be powers of 2"):
            kind(2, strides=(3, 6, 12, 24))
        with pytest.raises(ValueError, match=r"proposal_candidates=\(1,\): must be two numbers"):
            kind(2, proposal_candidates=[1])


def test_head_sizes_are_options() -> None:
    shallow = DETECTORS["retinanet"](head_depth=0)  # whose last convolution sees the pyramid itself
    assert not list(shallow.head.classification_head.conv)
    assert shallow.head.classification_head.cls_logits.in_channels == RETINANET["pyramid_width"]
    assert len(shallow.detect(images()[0][None])[0].boxes) > 10
    deep = build_mask_rcnn(backbone(), **{**MASK_RCNN, "head_depth": 3, "head_width": 9})
    assert [layer[0].out_channels for layer in deep.roi_heads.mask_head] == [9, 9, 9]
