"""The published family: names, figures, and weights carried from size to size."""

from __future__ import annotations

import dataclasses
from typing import cast

import pytest
import torch

from model_helpers import fill, noise
from vision_longformer import Full, ModelConfig, VisionLongformer, Windowed, create_model, list_models, multiply_adds
from vision_longformer.variants import CONFIGS, VARIANTS, variant_of
from vision_longformer.weights import resize_position_tables

PREFIX = "vision_longformer_"
# Parameters and multiply-adds as printed, in millions and billions: DESIGN's table, from the paper.
FIGURES = {
    "tiny": (6.7, 1.43),
    "small": (24.6, 5.12),
    "medium_deep": (39.7, 9.1),
    "medium_wide": (39.8, 11.3),
    "base_deep": (55.7, 45.3),
    "base_wide": (79.0, 55.8),
    "swin_tiny": (28, 5.33),
    "swin_small": (50, 9.85),
}


def parameters(name: str) -> int:
    return sum(parameter.numel() for parameter in create_model(name, device="meta").parameters())


def multiply_adds_at(name: str, side: int) -> float:
    """Count as published: the full form, with windows of 7 tokens."""
    config = CONFIGS[f"{PREFIX}{name}_ape_full"]
    stages = tuple(
        dataclasses.replace(stage, attention=Windowed()) if isinstance(stage.attention, Windowed) else stage
        for stage in config.stages
    )
    return multiply_adds(dataclasses.replace(config, stages=stages), (side, side)) / 1e9


def test_names_come_in_the_order_of_the_table() -> None:
    assert len(list_models()) == 36
    assert list_models() == [
        f"{PREFIX}{name}{position}{full}"
        for name in ("nano", *FIGURES)
        for position in ("", "_ape")
        for full in ("", "_full")
    ]


@pytest.mark.parametrize("name", FIGURES)
def test_parameters_are_those_published(name: str) -> None:
    published = FIGURES[name][0]
    count = parameters(f"{PREFIX}{name}_ape_full") / 1e6
    if isinstance(published, int):  # published as whole millions
        assert published - 0.5 <= count < published + 0.5
    else:
        assert count == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("name", FIGURES)
def test_multiply_adds_are_those_published(name: str) -> None:
    side = 384 if name.startswith("base") else 224
    assert multiply_adds_at(name, side) == pytest.approx(FIGURES[name][1], rel=0.01)


@pytest.mark.parametrize(("name", "published"), [("medium_deep", 29.4), ("medium_wide", 35.1)])
def test_multiply_adds_at_384_are_those_published(name: str, published: float) -> None:
    assert multiply_adds_at(name, 384) == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("name", FIGURES)
def test_the_table_holds_the_same_figures(name: str) -> None:
    published = VARIANTS[name].published
    assert published is not None
    assert (published.parameters / 1e6, published.multiply_adds / 1e9) == pytest.approx(FIGURES[name])
    assert published.image_size == VARIANTS[name].image_size


@pytest.mark.parametrize("name", list_models())
def test_suffixes_choose_the_form(name: str) -> None:
    config = CONFIGS[name]
    assert [stage.num_global_tokens for stage in config.stages] == [1, 1, 1, 0]
    assert {stage.position for stage in config.stages} == {"absolute" if "_ape" in name else "relative"}
    assert [isinstance(stage.attention, Full) for stage in config.stages] == [False] * 2 + [name.endswith("_full")] * 2
    assert variant_of(name) is VARIANTS[name.removeprefix(PREFIX).replace("_full", "").replace("_ape", "")]


def test_a_typo_is_answered_with_a_suggestion() -> None:
    with pytest.raises(
        ValueError, match=r"there is no model 'vision_longformer_smal'; did you mean 'vision_longformer_small'\?"
    ):
        create_model("vision_longformer_smal")
    with pytest.raises(
        ValueError, match=r"there is no model 'resnet'.* \(vision_longformer.list_models\(\) names them"
    ):
        create_model("resnet")


@pytest.mark.parametrize("suffix", ["_ape", "_full", "_ape_full"])
@pytest.mark.parametrize(("trained", "size"), [((96, 96), (64, 224)), ((64, 64), (64, 64)), ((160, 160), (33, 97))])
def test_tables_are_resized_when_weights_are_loaded(
    suffix: str, trained: tuple[int, int], size: tuple[int, int]
) -> None:
    name = f"{PREFIX}nano{suffix}"
    source = cast(VisionLongformer, create_model(name, img_size=trained)).eval()
    fill(source, std=0.05)
    target = cast(VisionLongformer, create_model(name, img_size=size)).eval()
    state = source.state_dict()
    target.load_state_dict(resize_position_tables(state, target))
    images = noise(1, 3, *size, dtype=torch.float32)
    torch.testing.assert_close(target(images), source(images), rtol=1e-4, atol=1e-5)  # tables follow any size
    assert {key: value.shape for key, value in state.items()} == {
        key: value.shape for key, value in source.state_dict().items()
    }


def test_tables_of_unknown_shape_are_refused() -> None:
    source = cast(VisionLongformer, create_model(f"{PREFIX}nano_full", img_size=(64, 160), device="meta"))
    target = cast(VisionLongformer, create_model(f"{PREFIX}nano_full", img_size=64, device="meta"))
    with pytest.raises(ValueError, match=r"stages.2.blocks.0.attn.position.table has 133 rows, which belong to no squ"):
        resize_position_tables(source.state_dict(), target)


def test_every_configuration_can_be_written_down() -> None:
    assert all(ModelConfig.from_dict(config.to_dict()) == config for config in CONFIGS.values())
