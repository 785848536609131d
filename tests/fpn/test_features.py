"""Maps of our backbones and of timm's."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from detection.cases import BACKBONE, RETINANET, SIZES, batch_of, images, targets
from model_helpers import noise
from vision_longformer import VisionLongformer, create_model
from vision_longformer.detection import build_features, build_mask_rcnn, build_retinanet
from vision_longformer.fpn.simple_pyramid import SimplePyramid
from vision_longformer.padding import size_at

# Other people's backbones, as small as they can be built.
TIMM: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "pvt_v2_b0": {"depths": (1, 1, 1, 1)},
    "swin_tiny_patch4_window7_224": {
        "img_size": (128, 160),
        "depths": (1, 1, 1, 1),
        "embed_dim": 16,
        "num_heads": (1, 2, 2, 4),
    },
    "vit_tiny_patch16_224": {"img_size": (128, 160), "depth": 3, "embed_dim": 24, "num_heads": 2},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},  # cuts off what its stride does not cover
}


def test_maps_are_those_of_the_model() -> None:
    options: dict[str, Any] = {"drop_path_rate": 0.2, "attention": "spatial_reduction", "partial": True}
    features = build_features("vision_longformer_nano_ape", (8, 16, 32), options=options)
    model = create_model("vision_longformer_nano_ape", num_classes=0, **options)
    model.load_state_dict(features.model.state_dict(), strict=False)
    pixels = noise(2, 3, 50, 70, dtype=torch.float32)
    expected = model.eval().forward_intermediates(pixels, intermediates_only=True)[1:]  # type: ignore[operator]
    maps = features.eval()(pixels, [(50, 70), (50, 70)])
    assert features.channels == (64, 128, 256)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(maps, expected, strict=True))


def test_nothing_is_kept_that_no_map_needs() -> None:
    features = build_features(VisionLongformer(BACKBONE), (4, 8))
    assert isinstance(features.model, VisionLongformer)
    assert len(features.model.stages) == 2
    assert isinstance(features.model.head, nn.Identity)
    assert isinstance(features.model.norm, nn.Identity)


@pytest.mark.parametrize("name", TIMM)
def test_timm_backbones_train_and_detect(name: str) -> None:
    torch.manual_seed(0)
    model = build_retinanet(name, **RETINANET, backbone_options=TIMM[name]).train()
    singles = images(dtype=torch.float32)
    losses = model(batch_of(singles), SIZES, targets())
    torch.stack(list(losses.values())).sum().backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    model.eval().score_thresh = 0.0
    assert [len(found.boxes) for found in model.detect(batch_of(singles), SIZES)][:2] == [100, 100]


@pytest.mark.parametrize("name", TIMM)
def test_timm_maps_have_our_sizes(name: str) -> None:
    features = build_features(name, (4, 8, 16, 32), options=TIMM[name]).eval()
    with torch.no_grad():
        maps = features(batch_of(images(dtype=torch.float32)), SIZES)
    for x, stride, channels in zip(maps, (4, 8, 16, 32), features.channels, strict=True):
        assert x.shape == (len(SIZES), channels, *size_at((101, 130), stride))
        assert x.isfinite().all()


def test_a_built_backbone_may_be_passed() -> None:
    model = timm.create_model("resnet18", features_only=True)
    assert build_mask_rcnn(model, num_classes=2).backbone.features.model is model
    with pytest.raises(ValueError, match="options: are for a backbone given by name"):
        build_features(model, (4, 8), options={"drop_path_rate": 0.1})


def test_a_single_map_becomes_a_pyramid() -> None:
    pyramid = SimplePyramid(24, stride=16, strides=(4, 8, 16, 32, 64))
    maps = pyramid(noise(2, 24, 4, 8, dtype=torch.float32))
    assert [tuple(x.shape[1:]) for x in maps] == [(6, 16, 32), (12, 8, 16), (24, 4, 8), (24, 2, 4), (24, 1, 2)]
    assert pyramid.channels == (6, 12, 24, 24, 24)
    with pytest.raises(ValueError, match=r"strides=\(2, 4\): 2 cannot be made from a single map of 16"):
        SimplePyramid(24, stride=16, strides=(2, 4))


def test_a_backbone_built_for_one_size_says_so() -> None:
    swin = "swin_tiny_patch4_window7_224"
    features = build_features(swin, (8, 16, 32), options={**TIMM[swin], "img_size": (64, 96)}).eval()
    assert features(torch.zeros(1, 3, 33, 90), [(33, 90)])[0].shape[2:] == (5, 12)
    with pytest.raises(ValueError, match=r"images: this backbone is built for 64×96 pixels and cannot take 65×90"):
        features(torch.zeros(1, 3, 65, 90), [(65, 90)])


@pytest.mark.parametrize(
    ("backbone", "strides", "message"),
    [
        ("vision_longformer_nanno", (8,), r"there is no model 'vision_longformer_nanno'; did you mean"),
        ("resnet18", (3, 6), r"strides=\(3, 6\): the backbone has maps of strides \(2, 4, 8, 16, 32\) only"),
        ("vision_longformer_nano", (32, 64), r"strides=\(32, 64\): the backbone has maps of strides \(4, 8, 16, 32\)"),
        ("mlp_mixer_b16_224", (8,), r"backbone='.*': timm cannot build it with features_only|there is no model"),
        (nn.Linear(1, 1), (8,), "backbone: Linear gives no maps: pass a name, a VisionLongformer, or a model of timm"),
    ],
)
def test_what_is_no_backbone_is_refused(backbone: str | nn.Module, strides: tuple[int, ...], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build_features(backbone, strides)
