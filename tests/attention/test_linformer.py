"""Linformer's projections at other sizes than those they were trained at."""

from __future__ import annotations

import copy
from typing import cast

import pytest
import torch

from model_helpers import MODELS, build, fill, noise, relative_error
from vision_longformer import Linformer, VisionLongformer, create_model
from vision_longformer.attention import LinformerAttention
from vision_longformer.attention.linformer import resize_features
from vision_longformer.weights import resize_position_tables

NAME = "vision_longformer_nano_ape"


def nano(size: int | tuple[int, int], *, shared: bool = True, device: str | None = None) -> VisionLongformer:
    attention = Linformer(num_features=6, shared_projection=shared)
    model = create_model(NAME, attention=attention, img_size=size, num_classes=3, device=device)
    return cast(VisionLongformer, model).eval()


def linformers(model: VisionLongformer) -> list[LinformerAttention]:
    return [module for module in model.modules() if isinstance(module, LinformerAttention)]


@pytest.mark.parametrize("size", [(61, 29), (17, 88), (35, 46)])
def test_a_resized_model_is_the_model_at_that_size(size: tuple[int, int]) -> None:
    model = build(MODELS["linformer absolute"])
    resized = copy.deepcopy(model)
    resized.set_input_size(size)
    images = noise(2, 3, *size)
    with torch.no_grad():
        assert relative_error(resized(images), model(images)) <= 1e-12
    for number, (stage, count) in enumerate(zip(resized.stages, (1, 2, 3, 0), strict=True)):
        height, width = resized.config.grid_size(number)
        for attention in linformers(cast(VisionLongformer, stage)):
            assert attention.grid == (height, width)
            assert attention.key_features.shape == (count + height * width, 5)
            assert attention.key_features.requires_grad
    for before, after in zip(linformers(model), linformers(resized), strict=True):
        count = before.num_global_tokens
        assert torch.equal(before.key_features[:count], after.key_features[:count])
        assert (before.value_features is None) == (after.value_features is None)
        if before.value_features is not None and after.value_features is not None:
            assert torch.equal(before.value_features[:count], after.value_features[:count])


def test_map_rows_are_resized_as_pictures() -> None:
    features = noise(3 + 5 * 7, 2)
    resized = resize_features(features, (5, 7), (11, 4), num_global_tokens=3)
    pictures = features[3:].T.unflatten(1, (5, 7))[None]
    expected = torch.nn.functional.interpolate(pictures, size=(11, 4), mode="bilinear", align_corners=False)[0]
    assert torch.equal(resized[:3], features[:3])
    assert relative_error(resized[3:].T.unflatten(1, (11, 4)), expected) <= 1e-14


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("size", [96, (64, 160)])
def test_projections_are_resized_when_weights_are_loaded(size: int | tuple[int, int], shared: bool) -> None:
    source, target = nano(128, shared=shared).double(), nano(size, shared=shared).double()
    fill(source, std=0.05)
    state = source.state_dict()
    target.load_state_dict(resize_position_tables(state, target))
    images = noise(1, 3, *target.config.image_size)
    with torch.no_grad():
        assert relative_error(target(images), source(images)) <= 1e-12
    assert all(torch.equal(tensor, state[name]) for name, tensor in source.state_dict().items())


def test_projections_of_unknown_shape_are_refused() -> None:
    source, target = nano((64, 160), device="meta"), nano(64, device="meta")
    message = r"stages.0.blocks.0.attn.key_features has 641 rows, which belong to no square map: build .* img_size"
    with pytest.raises(ValueError, match=message):
        resize_position_tables(source.state_dict(), target)


def test_initial_projections_are_uniform() -> None:
    torch.manual_seed(0)
    attention = LinformerAttention(Linformer(16, False), width=8, num_heads=2, num_global_tokens=3, grid=(40, 50))
    for features in (attention.key_features, attention.value_features):
        assert features is not None
        assert features.abs().max() <= 1 / 4
        assert abs(features.var() - 1 / 4**2 / 3) < 1e-3
        assert abs(features.mean()) < 5e-3
