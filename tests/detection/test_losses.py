"""The losses of Mask R-CNN, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from detection.cases import MASK_RCNN
from vision_longformer.detection import MaskRCNNConfig, Target
from vision_longformer.detection.proposals import Candidates, ProposalNetwork
from vision_longformer.detection.roi_heads import BoxAndMaskHeads

BOX = [10.0, 20, 50, 40]
CONFIG = MaskRCNNConfig(**MASK_RCNN)
TARGET = Target(torch.tensor([BOX]), torch.tensor([2]), torch.ones(1, 64, 64, dtype=torch.bool))


def test_the_losses_of_proposals() -> None:
    """Of a matching anchor, an ignored one (a third of the area is shared) and one far away."""
    anchors = torch.tensor([BOX, [30.0, 20, 70, 40], [0.0, 50, 9, 60]])
    logits = torch.tensor([math.log(3), 50, 0]).requires_grad_()
    offsets = torch.tensor([[0.5, 0, -0.25, 0.01], [9.0, 9, 9, 9], [9.0, 9, 9, 9]]).requires_grad_()
    losses = ProposalNetwork(CONFIG).losses([Candidates(logits, offsets, anchors, [3])], [TARGET])
    assert losses["proposals"].item() == pytest.approx((-math.log(3 / 4) - math.log(1 / 2)) / 2)
    assert losses["proposal_boxes"].item() == pytest.approx((0.5 + 0.25 + 0.01) / 2)


def test_the_losses_of_the_heads() -> None:
    """A head that knows nothing: of a proposal beside the object, one far away, and the object itself."""
    heads = BoxAndMaskHeads(CONFIG)
    for module in (heads.box_predictor, heads.mask_predictor):
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
    proposals = torch.tensor([[18.0, 20, 58, 40], [0.0, 50, 9, 60]])
    maps = [torch.zeros(1, 14, 64 // stride, 64 // stride) for stride in CONFIG.strides]
    losses = heads.losses(maps, [proposals], [TARGET])
    assert losses["classification"].item() == pytest.approx(math.log(4))
    assert losses["boxes"].item() == pytest.approx(10 * 8 / 40 / 3)  # x is off by 8 of 40 pixels, and weighs 10
    assert losses["masks"].item() == pytest.approx(math.log(2))


def test_a_mask_is_learned_for_its_own_class() -> None:
    """Of a mask head that is sure of class 2, and wrong for every other."""
    heads = BoxAndMaskHeads(CONFIG)
    for parameter in heads.mask_predictor.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        heads.mask_predictor.mask_fcn_logits.bias.copy_(torch.tensor([-20.0, -20, 20]))
    maps = [torch.zeros(1, 14, 64 // stride, 64 // stride) for stride in CONFIG.strides]
    assert heads.losses(maps, [torch.zeros(0, 4)], [TARGET])["masks"].item() < 1e-6
