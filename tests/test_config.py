"""Configurations refuse impossible values, and survive being written down."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from model_helpers import MODELS
from vision_longformer import (
    Full,
    GlobalOnly,
    Linformer,
    ModelConfig,
    Performer,
    SpatialReduction,
    StageConfig,
    Windowed,
)

STAGE = StageConfig(depth=2, width=6, num_heads=3)
STAGES = (STAGE,) * 3


def stage(**fields: Any) -> StageConfig:
    return StageConfig(**{"depth": 2, "width": 6, "num_heads": 3, **fields})


def model(**fields: Any) -> ModelConfig:
    return ModelConfig(**{"stages": STAGES, **fields})


@pytest.mark.parametrize(
    ("build", "fields", "message"),
    [
        (Windowed, {"window_size": 0}, "window_size=0: must be an integer of at least 1"),
        (Windowed, {"window_size": 7.0}, "window_size=7.0: must be an integer of at least 1"),
        (Windowed, {"shape": "round"}, "shape='round': must be one of 'chunk', 'exact', 'cyclic'"),
        (Windowed, {"neighbours": 8}, "neighbours=8: must be one of 'all', 'own', 'random'"),
        (Windowed, {"shape": "exact", "neighbours": "random"}, "neighbours='random': random neighbours need whole"),
        (Windowed, {"shared_global_projections": 1}, "shared_global_projections=1: must be True or False"),
        (GlobalOnly, {"shared_global_projections": None}, "shared_global_projections=None: must be True or False"),
        (Linformer, {"num_features": 0}, "num_features=0: must be an integer of at least 1"),
        (Linformer, {"shared_projection": 0}, "shared_projection=0: must be True or False"),
        (SpatialReduction, {"ratio": 0}, "ratio=0: must be an integer of at least 1"),
        (SpatialReduction, {"ratio": 2.5}, "ratio=2.5: must be an integer of at least 1"),
        (Performer, {"num_features": True}, "num_features=True: must be an integer of at least 1"),
        (stage, {"depth": 0}, "depth=0: must be an integer of at least 1"),
        (stage, {"width": -6}, "width=-6: must be an integer of at least 1"),
        (stage, {"num_heads": True}, "num_heads=True: must be an integer of at least 1"),
        (stage, {"num_heads": 4}, "num_heads=4: must divide the width 6"),
        (stage, {"patch_size": "2"}, "patch_size='2': must be an integer of at least 1"),
        (stage, {"num_global_tokens": -1}, "num_global_tokens=-1: must be an integer of at least 0"),
        (stage, {"position": "ape"}, "position='ape': must be one of 'relative', 'absolute', 'none'"),
        (stage, {"position": "absolute", "width": 9}, "width=9: must be even: half of an absolute"),
        (stage, {"attention": "full"}, "attention='full': must be a Windowed, Full, GlobalOnly, Linformer, Spati"),
        (stage, {"attention": GlobalOnly(), "num_global_tokens": 0}, "num_global_tokens=0: global-only attention"),
        (stage, {"attention": Linformer()}, "position='relative': Linformer attention has no biases by relative"),
        (stage, {"attention": SpatialReduction(2)}, "position='relative': SpatialReduction attention has no biases"),
        (stage, {"attention": Performer()}, "position='relative': Performer attention has no biases by relative"),
        (model, {"stages": STAGES[:2]}, "stages=2: must be 3 or 4 stages"),
        (model, {"stages": STAGES + STAGES}, "stages=6: must be 3 or 4 stages"),
        (model, {"stages": 3}, "stages=3: must be a sequence"),
        (model, {"stages": ("a", "b", "c")}, "stages=('a', 'b', 'c'): must hold StageConfig objects"),
        (model, {"image_size": None}, "image_size=None: must be a sequence"),
        (model, {"image_size": (224,)}, "image_size=(224,): must be (height, width)"),
        (model, {"image_size": (224, 0)}, "image_size=0: must be an integer of at least 1"),
        (model, {"image_size": (224, 7.5)}, "image_size=7.5: must be an integer of at least 1"),
        (model, {"in_chans": 0}, "in_chans=0: must be an integer of at least 1"),
        (model, {"num_classes": -1}, "num_classes=-1: must be an integer of at least 0"),
        (model, {"global_pool": "max"}, "global_pool='max': must be one of 'token', 'avg', ''"),
        (
            model,
            {"global_pool": "token", "stages": (STAGE, STAGE, stage(num_global_tokens=0))},
            "global_pool='token': the last stage has no global token to pool",
        ),
        (model, {"norm_embed": "no"}, "norm_embed='no': must be True or False"),
        (model, {"drop_rate": 1.0}, "drop_rate=1.0: must be a number from 0 up to"),
        (model, {"drop_path_rate": -0.1}, "drop_path_rate=-0.1: must be a number from 0 up to"),
        (model, {"drop_path_rate": float("nan")}, "drop_path_rate=nan: must be a number from 0 up to"),
    ],
)
def test_errors_name_field_value_and_rule(build: Callable[..., Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        build(**fields)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("name", MODELS)
def test_a_configuration_survives_json(name: str) -> None:
    config = MODELS[name]
    assert ModelConfig.from_dict(config.to_dict()) == config
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_dictionaries_hold_plain_values() -> None:
    values = model(image_size=(31, 47), stages=(stage(attention=Full()), *STAGES[1:])).to_dict()
    assert values["image_size"] == [31, 47]
    assert values["stages"][0]["attention"] == {"kind": "full"}
    others = (Linformer(3, False), SpatialReduction(5), Performer(7))
    stages = model(stages=tuple(stage(position="none", attention=attention) for attention in others)).to_dict()
    assert [values["attention"] for values in stages["stages"]] == [
        {"kind": "linformer", "num_features": 3, "shared_projection": False},
        {"kind": "spatial_reduction", "ratio": 5},
        {"kind": "performer", "num_features": 7},
    ]
    assert values["stages"][1] == {
        "depth": 2,
        "width": 6,
        "num_heads": 3,
        "patch_size": 2,
        "num_global_tokens": 1,
        "position": "relative",
        "attention": {
            "kind": "windowed",
            "window_size": 7,
            "shape": "chunk",
            "neighbours": "all",
            "shared_global_projections": True,
        },
    }


def test_absent_fields_take_their_defaults() -> None:
    assert ModelConfig.from_dict({"stages": [{"depth": 2, "width": 6, "num_heads": 3}] * 3}) == model()


PLAIN = model().to_dict()


def stages_with(**fields: Any) -> dict[str, Any]:
    return {"stages": [{**PLAIN["stages"][0], **fields}, *PLAIN["stages"][1:]]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "stages: ModelConfig needs this field"),
        ({"stages": None}, "stages=None: must be a sequence"),
        ({"stages": [1, 2, 3]}, "stages: stage 1 is 1, not a mapping of fields"),
        ({"stages": [{"width": 6, "num_heads": 3}] * 3}, "depth: StageConfig needs this field"),
        ({**PLAIN, "num_class": 3}, "num_class: ModelConfig has no such field; it has stages, image_size"),
        (stages_with(heads=3), "heads: StageConfig has no such field; it has depth, width"),
        (stages_with(width=7), "num_heads=3: must divide the width 7"),
        (stages_with(attention="full"), "attention='full': must be a mapping whose 'kind' is one of 'windowed'"),
        (stages_with(attention={"kind": "swin"}), "attention={'kind': 'swin'}: must be a mapping whose 'kind'"),
        (stages_with(attention={"kind": ["full"]}), "attention={'kind': ['full']}: must be a mapping whose"),
        (stages_with(attention={"kind": "full", "window_size": 7}), "window_size: Full has no such field"),
        (stages_with(attention={"kind": "spatial_reduction"}), "ratio: SpatialReduction needs this field"),
        (stages_with(attention={"kind": "performer", "ratio": 2}), "ratio: Performer has no such field"),
    ],
)
def test_dictionaries_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        ModelConfig.from_dict(values)
    assert str(error.value).startswith(message)


def test_an_integer_is_a_square_image() -> None:
    assert ModelConfig(STAGES, image_size=96).image_size == (96, 96)  # type: ignore[arg-type]


def test_strides_and_grids_round_up() -> None:
    config = model(image_size=(31, 46), stages=tuple(stage(patch_size=p) for p in (3, 2, 5)))
    assert config.strides == (3, 6, 30)
    assert [config.grid_size(number) for number in range(3)] == [(11, 16), (6, 8), (2, 2)]


def test_configurations_are_frozen_and_hashable() -> None:
    assert len({model(), model(), model(num_classes=3)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        STAGE.depth = 3  # type: ignore[misc]
