"""The feature pyramid."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch.nn import functional as F

from detection.cases import BACKBONE, SIZES, backbone, batch_of, images, liven
from model_helpers import noise, relative_error
from vision_longformer import VisionLongformer
from vision_longformer.detection import build_features
from vision_longformer.fpn.pyramid import FeaturePyramid, Top
from vision_longformer.padding import size_at

STRIDES: dict[Top, tuple[int, ...]] = {
    "convolutions": (4, 8, 16, 32, 64, 128),
    "subsampled": (4, 8, 16, 32, 64),
    "none": (4, 8, 16, 32),
}


def build(top: Top, *, width: int = 14) -> FeaturePyramid:
    pyramid = FeaturePyramid(build_features(backbone(), (4, 8, 16, 32)), width=width, top=top).double()
    liven(pyramid.fpn)
    return pyramid


@pytest.mark.parametrize("top", STRIDES)
def test_maps_do_not_depend_on_padding(top: Top) -> None:
    pyramid, singles = build(top), images()
    assert pyramid.strides == STRIDES[top]
    with torch.no_grad():
        together, paddings = pyramid(batch_of(singles, extra=19), SIZES)
        for number, (single, size) in enumerate(zip(singles, SIZES, strict=True)):
            alone, _ = pyramid(single[None], (size,))
            for mine, shared, padding, stride in zip(alone, together, paddings, pyramid.strides, strict=True):
                height, width = size_at(size, stride)
                assert padding.sizes is not None
                assert padding.sizes[number].tolist() == [height, width]
                assert mine.shape == (1, 14, height, width)
                assert relative_error(shared[number, :, :height, :width], mine[0]) <= 1e-12


@pytest.mark.parametrize("top", STRIDES)
def test_without_padding_it_is_torchvisions(top: Top) -> None:
    """Where every map has exactly twice the size of the next, their forward passes agree."""
    pyramid, pixels = build(top), noise(2, 3, 64, 96)
    maps, _ = pyramid(pixels, ((64, 96), (64, 96)))
    expected = list(pyramid.fpn(OrderedDict(enumerate(pyramid.features(pixels, [(64, 96)] * 2)))).values())
    if top == "subsampled":
        expected.append(F.max_pool2d(expected[-1], 1, stride=2))
    for mine, theirs in zip(maps, expected, strict=False):
        assert relative_error(mine, theirs) <= 1e-12


def test_the_added_levels_come_from_the_backbones_last_map() -> None:
    """Even where the pyramid is as wide as that map, for which torchvision takes its own last map instead."""
    width = BACKBONE.stages[-1].width
    pyramid, pixels = build("convolutions", width=width), noise(1, 3, 64, 96)
    assert pyramid.extra is not None
    maps, _ = pyramid(pixels, ((64, 96),))
    c5 = pyramid.features(pixels, [(64, 96)])[-1]
    assert relative_error(maps[4], pyramid.extra.p6(c5)) <= 1e-12
    assert relative_error(maps[5], pyramid.extra.p7(F.relu(pyramid.extra.p6(c5)))) <= 1e-12


def test_strides_must_double() -> None:
    with pytest.raises(ValueError, match=r"strides=\(4, 16\): each must be twice the one before"):
        FeaturePyramid(build_features(backbone(), (4, 16)), width=8, top="none")


def test_every_parameter_is_used() -> None:
    """Distributed training waits for the gradient of each."""
    for strides in ((8, 16, 32), (4, 8)):
        pyramid = FeaturePyramid(build_features(VisionLongformer(BACKBONE), strides), width=8, top="none").train()
        maps, _ = pyramid(noise(2, 3, 50, 70, dtype=torch.float32), ((50, 70), (20, 10)))
        torch.stack([x.sum() for x in maps]).sum().backward()
        assert [name for name, parameter in pyramid.named_parameters() if parameter.grad is None] == []
        assert not [name for name, _ in pyramid.named_parameters() if "head" in name or ".model.norm" in name]
