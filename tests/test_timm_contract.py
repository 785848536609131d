"""What timm asks of every model, for every registered name.

Shapes are checked on the meta device, where nothing is computed; figures on one model of each name.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, cast

import pytest
import timm
import torch
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn

from vision_longformer import VisionLongformer, create_model, list_models
from vision_longformer.pretrained import backbones
from vision_longformer.variants import CONFIGS

HEIGHT, WIDTH = 67, 97
NAMES = list_models()


def on_meta(name: str, **options: Any) -> VisionLongformer:
    return cast(VisionLongformer, create_model(name, device="meta", **options)).eval()


def shallow(name: str, **options: Any) -> VisionLongformer:
    """Build a model with one block in each stage: enough for the shapes of its output."""
    config = CONFIGS[name]
    stages = tuple(dataclasses.replace(stage, depth=1) for stage in config.stages)
    return on_meta(name, config=dataclasses.replace(config, stages=stages), **options)


def meta_images(*, chans: int = 3, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Tensor:
    return torch.empty(2, chans, *size, device="meta")


def grid(stride: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> tuple[int, int]:
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)


@pytest.fixture(scope="module", params=NAMES)
def computing(request: pytest.FixtureRequest) -> Iterator[VisionLongformer]:
    """A model with weights, which tests may not change except for its mode and gradients."""
    model = on_meta(request.param).to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            bound = 0.3 if parameter.ndim == 1 else 1.7 * parameter.shape[-1] ** -0.5
            parameter.uniform_(-bound, bound)
    yield model
    model.zero_grad()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


def test_forward_is_finite_and_is_the_head_of_the_features(computing: VisionLongformer, images: Tensor) -> None:
    computing.eval()
    with torch.no_grad():
        logits = computing(images)
        final, intermediates = computing.forward_intermediates(images, norm=True)
        pooled = computing.forward_head(final, pre_logits=True)
    assert logits.shape == (1, 1000)
    assert logits.isfinite().all()
    assert pooled.shape == (1, computing.head_hidden_size)
    assert computing.num_features == computing.head_hidden_size == computing.config.stages[-1].width
    torch.testing.assert_close(computing.head(pooled), logits)
    torch.testing.assert_close(intermediates[-1], final.permute(0, 3, 1, 2))
    for taken, info in zip(intermediates, computing.feature_info, strict=True):
        assert taken.shape == (1, info["num_chs"], *grid(cast(int, info["reduction"])))
        assert taken.isfinite().all()


def test_every_parameter_gets_a_gradient(computing: VisionLongformer, images: Tensor) -> None:
    computing.train()
    computing.zero_grad()
    computing(images).mean().backward()
    missing = [name for name, parameter in computing.named_parameters() if parameter.grad is None]
    assert not missing
    assert all(cast(Tensor, parameter.grad).isfinite().all() for parameter in computing.parameters())
    assert computing.get_parameter("stages.0.patch_embed.proj.weight").grad.abs().max() > 0  # type: ignore[union-attr]


@pytest.mark.parametrize("stages", [(0, 1, 2, 3), (0, 1), (3,)])
def test_every_parameter_of_a_backbone_of_some_stages_gets_a_gradient(images: Tensor, stages: tuple[int, ...]) -> None:
    model = timm.create_model("vision_longformer_nano", features_only=True, out_indices=stages).train()
    torch.stack([feature.square().mean() for feature in model(images)]).sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("name", NAMES)
def test_default_configuration_describes_the_model(name: str) -> None:
    model = shallow(name)
    description = model.default_cfg
    assert description is model.pretrained_cfg
    state = model.state_dict()
    assert f"{description['classifier']}.weight" in state
    assert f"{description['first_conv']}.weight" in state
    assert description["num_classes"] == model.num_classes == len(state[f"{description['classifier']}.weight"])
    chans, *size = description["input_size"]
    assert chans == model.in_chans == state[f"{description['first_conv']}.weight"].shape[1]
    features = model.forward_features(torch.empty(1, chans, *size, device="meta"))
    assert features.shape == (1, *description["pool_size"], model.num_features)
    assert (description["architecture"], description["fixed_input_size"]) == (name, False)
    assert description["interpolation"] == "bicubic"
    if name in backbones():  # what its weights were trained with
        assert (description["tag"], description["crop_pct"]) == ("distill_mixed", 1.0)
    else:
        assert description["crop_pct"] == (0.922 if size == [384, 384] else 0.875)


@pytest.mark.parametrize("name", NAMES)
def test_head_can_be_replaced_and_removed(name: str) -> None:
    model = shallow(name)
    assert model.get_classifier() is model.head
    assert isinstance(model.get_classifier(), nn.Linear)
    pooled, unpooled = (2, model.num_features), (2, *grid(32), model.num_features)

    features = model.forward_features(meta_images())
    model.reset_classifier(11)
    assert model.forward_head(features).shape == (2, 11)
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert model(meta_images()).shape == pooled
    model.reset_classifier(0, "")
    assert (model.num_classes, model.global_pool) == (0, "")
    assert model(meta_images()).shape == unpooled
    model.reset_classifier(13, "avg")
    assert model.forward_head(features).shape == (2, 13)

    assert shallow(name, num_classes=0)(meta_images()).shape == pooled
    assert shallow(name, num_classes=0, global_pool="")(meta_images()).shape == unpooled


@pytest.mark.parametrize("name", NAMES)
def test_constructor_options_reach_the_model(name: str) -> None:
    options = {"num_classes": 7, "in_chans": 1, "drop_rate": 0.2, "drop_path_rate": 0.3}
    model = shallow(name, img_size=(64, 96), **options)
    assert model(meta_images(chans=1)).shape == (2, 7)
    for option, value in options.items():
        assert getattr(model.config, option) == value
    assert model.config.image_size == (64, 96)
    assert model.head_drop.p == 0.2


@pytest.mark.parametrize("name", NAMES)
def test_features_only_gives_the_stages_asked_for(name: str) -> None:
    every_stage: Any = shallow(name, features_only=True)
    assert every_stage.feature_info.reduction() == [4, 8, 16, 32]
    some: Any = shallow(name, features_only=True, out_indices=(0, 2))
    for model in (every_stage, some):
        maps = model(meta_images())
        channels, reductions = model.feature_info.channels(), model.feature_info.reduction()
        assert [x.shape for x in maps] == [
            (2, chans, *grid(reduction)) for chans, reduction in zip(channels, reductions, strict=True)
        ]
    assert list(some.feature_info.out_indices) == [0, 2]
    assert len(some.model.stages) == 3


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_grouped_from_stem_to_head(name: str) -> None:
    model = on_meta(name)
    names = {parameter for parameter, _ in model.named_parameters()}
    for coarse in (False, True):
        layer = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
        assert set(layer) == names
        depth = len(model.stages) if coarse else sum(stage.depth for stage in model.config.stages)
        assert set(layer.values()) == set(range(depth + 2))  # the stem before, the head after
        assert {n for n, number in layer.items() if number == 0} == {
            n for n in names if n.startswith("stages.0.patch_embed.")
        }
        assert layer["head.weight"] == layer["head.bias"] == depth + 1
        order = [layer[f"stages.{s}.blocks.{b}.mlp.fc1.weight"] for s, b in block_numbers(model)]
        assert order == sorted(order)
        if not coarse:
            assert order == list(range(1, depth + 1))
    groups = param_groups_layer_decay(model, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(names)
    assert max(group["lr_scale"] for group in groups) == 1


def block_numbers(model: VisionLongformer) -> Iterator[tuple[int, int]]:
    for number, stage in enumerate(model.config.stages):
        for block in range(stage.depth):
            yield number, block


@pytest.mark.parametrize("name", NAMES)
def test_norms_biases_positions_and_global_tokens_do_not_decay(name: str) -> None:
    model = shallow(name)
    groups = param_groups_weight_decay(model, weight_decay=0.05, no_weight_decay_list=model.no_weight_decay())
    decaying = {id(p) for group in groups if group["weight_decay"] == 0.05 for p in group["params"]}
    expected = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)
    }  # matrices and kernels, nothing else
    assert decaying == expected
    assert model.no_weight_decay() < {parameter for parameter, _ in model.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_input_size_can_be_set(name: str) -> None:
    for size, expected in ((64, (64, 64)), ((70, 131), (70, 131)), (None, None)):
        model = shallow(name)
        unchanged = model.config.image_size
        model.set_input_size(size)
        assert model.config.image_size == (expected or unchanged)
        built = shallow(name, img_size=expected or unchanged)
        assert {k: v.shape for k, v in model.state_dict().items()} == {
            k: v.shape for k, v in built.state_dict().items()
        }


@pytest.mark.parametrize("name", NAMES)
def test_timm_builds_the_same_model(name: str) -> None:
    model = timm.create_model(name, img_size=64, num_classes=3, device="meta")
    assert model.config == dataclasses.replace(CONFIGS[name], image_size=(64, 64), num_classes=3)
    assert timm.list_models(name) == [name]
    assert timm.is_model(name)
