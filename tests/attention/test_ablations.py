"""The paper's comparison of mechanisms: names, settings and figures; and any configuration in any stage."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch

from model_helpers import config, noise
from vision_longformer import (
    Full,
    GlobalOnly,
    Linformer,
    ModelConfig,
    Performer,
    SpatialReduction,
    VisionLongformer,
    Windowed,
    create_model,
    multiply_adds,
)
from vision_longformer.attention import LinformerAttention, PerformerAttention
from vision_longformer.attention.ablations import MECHANISMS, find_mechanism, list_mechanisms, with_attention
from vision_longformer.config import Attention
from vision_longformer.variants import CONFIGS
from vision_longformer.weights import load, save

SMALL, NANO = "vision_longformer_small_ape", "vision_longformer_nano_ape"
# The published comparison: parameters in millions, multiply-adds in billions at 224×224, top-1 in percent.
FIGURES = {
    "full": (24.6, 6.95, 81.9),
    "linformer": (26.3, 5.62, 81.0),
    "spatial_reduction": (52.9, 3.97, 76.4),
    "spatial_reduction_32": (31.1, 4.28, 79.9),
    "global_only": (24.9, 6.78, 79.0),
    "performer": (24.8, 6.26, 78.7),
    "partial_windowed": (24.6, 5.12, 82.0),
    "partial_linformer": (25.8, 5.21, 81.8),
    "partial_spatial_reduction": (26.4, 4.57, 81.6),
    "partial_global_only": (24.9, 6.3, 81.4),
    "partial_performer": (24.7, 5.52, 81.7),
}
COUNTED_OTHERWISE = ("spatial_reduction", "global_only", "performer", "partial_global_only", "partial_performer")
LINFORMER, PERFORMER = Linformer(num_features=256), Performer(num_features=256)
SETTINGS: dict[str, tuple[Attention, ...]] = {
    "windowed": (Windowed(),) * 4,
    "full": (Full(),) * 4,
    "linformer": (LINFORMER,) * 4,
    "spatial_reduction": (SpatialReduction(16), SpatialReduction(8), SpatialReduction(4), SpatialReduction(2)),
    "spatial_reduction_32": (SpatialReduction(8), SpatialReduction(4), SpatialReduction(2), Full()),
    "global_only": (GlobalOnly(),) * 4,
    "performer": (PERFORMER,) * 4,
    "partial_windowed": (Windowed(), Windowed(), Full(), Full()),
    "partial_linformer": (LINFORMER, LINFORMER, Full(), Full()),
    "partial_spatial_reduction": (SpatialReduction(8), SpatialReduction(4), Full(), Full()),
    "partial_global_only": (GlobalOnly(), GlobalOnly(), Full(), Full()),
    "partial_performer": (PERFORMER, PERFORMER, Full(), Full()),
}
GLOBAL_TOKENS = {"global_only": (256, 256, 64, 16), "partial_global_only": (256, 256, 1, 0)}
# Stages of small at 224×224: side of the map, channels, blocks.
STAGES = ((56, 96, 1), (28, 192, 2), (14, 384, 8), (7, 768, 1))
PATCHES_AND_CLASSIFIER = 768 * 1000 + sum(
    side**2 * channels * patch
    for (side, channels, _), patch in zip(STAGES, (48, 4 * 96, 4 * 192, 4 * 384), strict=True)
)


def of_small(name: str) -> VisionLongformer:
    return cast(VisionLongformer, create_model(SMALL, attention=name, device="meta"))


def tiny(attention: Any, **options: Any) -> VisionLongformer:
    model = create_model(NANO, attention=attention, num_classes=3, **options)
    return cast(VisionLongformer, model).eval()


# --- the published table ------------------------------------------------------------------------------------------


def test_every_row_of_the_table_has_a_name() -> None:
    assert set(list_mechanisms()) == set(SETTINGS) == {*FIGURES, "windowed"}
    assert MECHANISMS["windowed"].published is None


@pytest.mark.parametrize("name", FIGURES)
def test_the_table_holds_the_published_figures(name: str) -> None:
    published = MECHANISMS[name].published
    assert published is not None
    found = (published.parameters / 1e6, published.multiply_adds / 1e9, published.top1)
    assert found == pytest.approx(FIGURES[name])


@pytest.mark.parametrize("name", FIGURES)
def test_parameters_are_those_published(name: str) -> None:
    count = sum(parameter.numel() for parameter in of_small(name).parameters()) / 1e6
    assert count == pytest.approx(FIGURES[name][0], rel=0.01)


@pytest.mark.parametrize("name", ["performer", "partial_performer"])
def test_published_parameters_of_performer_count_its_projections(name: str) -> None:
    model = of_small(name)
    projections = [module.projection for module in model.modules() if isinstance(module, PerformerAttention)]
    count = sum(tensor.numel() for tensor in [*model.parameters(), *projections]) / 1e6
    assert round(count, 1) == FIGURES[name][0]


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in COUNTED_OTHERWISE])
def test_multiply_adds_are_those_published(name: str) -> None:
    assert multiply_adds(of_small(name).config, (224, 224)) / 1e9 == pytest.approx(FIGURES[name][1], rel=0.01)


def test_published_multiply_adds_of_sra_64_leave_out_partial_squares() -> None:
    counts = {}
    for rounded in (math.floor, math.ceil):
        total = PATCHES_AND_CLASSIFIER
        for (side, channels, depth), ratio, num_global in zip(STAGES, (16, 8, 4, 2), (1, 1, 1, 0), strict=True):
            tokens, reduced = side**2, rounded(side / ratio) ** 2
            linear = (2 * tokens + ratio**2 * reduced + 2 * reduced + 8 * tokens) * channels**2
            total += depth * (linear + 2 * channels * tokens * (reduced + num_global))
        counts[rounded] = total
    assert multiply_adds(of_small("spatial_reduction").config, (224, 224)) == counts[math.ceil]
    assert counts[math.floor] / 1e9 == pytest.approx(FIGURES["spatial_reduction"][1], rel=0.01)


@pytest.mark.parametrize(("name", "stages"), [("performer", 4), ("partial_performer", 2)])
def test_published_multiply_adds_of_performer_take_half_as_many_products_again(name: str, stages: int) -> None:
    products = sum(depth * side**2 * 256 * channels for side, channels, depth in STAGES[:stages])
    others = PATCHES_AND_CLASSIFIER + sum(depth * 12 * side**2 * channels**2 for side, channels, depth in STAGES)
    others += sum(depth * 2 * channels * side**4 for side, channels, depth in STAGES[stages:])
    assert multiply_adds(of_small(name).config, (224, 224)) == others + 4 * products
    assert (others + 6 * products) / 1e9 == pytest.approx(FIGURES[name][1], rel=0.01)


@pytest.mark.parametrize(("name", "stages"), [("global_only", 4), ("partial_global_only", 2)])
def test_multiply_adds_of_global_only_are_the_sum_of_its_terms(name: str, stages: int) -> None:
    total = PATCHES_AND_CLASSIFIER + sum(depth * 12 * side**2 * channels**2 for side, channels, depth in STAGES)
    for (side, channels, depth), num_global in zip(STAGES[:stages], (256, 256, 64, 16), strict=False):
        total += depth * 4 * channels * side**2 * num_global
    total += sum(depth * 2 * channels * side**4 for side, channels, depth in STAGES[stages:])
    assert multiply_adds(of_small(name).config, (224, 224)) == total


# --- what a name stands for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_a_name_stands_for_the_papers_settings(name: str) -> None:
    base = CONFIGS[SMALL]
    changed = with_attention(base, name)
    assert tuple(stage.attention for stage in changed.stages) == SETTINGS[name]
    assert tuple(stage.num_global_tokens for stage in changed.stages) == GLOBAL_TOKENS.get(name, (1, 1, 1, 0))
    assert changed.global_pool == ("token" if name == "global_only" else "avg")
    for before, after in zip(base.stages, changed.stages, strict=True):
        assert (after.depth, after.width, after.num_heads) == (before.depth, before.width, before.num_heads)
        assert (after.patch_size, after.position) == (before.patch_size, before.position)


@pytest.mark.parametrize(
    ("name", "partial_name"),
    [
        *((name, f"partial_{name}") for name in SETTINGS if f"partial_{name}" in SETTINGS),
        *((name, name) for name in SETTINGS if name.startswith("partial_")),
        ("spatial_reduction_32", "partial_spatial_reduction"),
    ],
)
def test_partial_forms(name: str, partial_name: str) -> None:
    assert find_mechanism(name, partial=True) is MECHANISMS[partial_name]
    assert with_attention(CONFIGS[SMALL], name, partial=True) == with_attention(CONFIGS[SMALL], partial_name)


def test_windows_of_a_model_are_kept() -> None:
    base = config(Windowed(5, shape="cyclic"), Full(), Windowed(3), Windowed(4))
    assert [stage.attention for stage in with_attention(base, "windowed").stages] == [
        Windowed(5, shape="cyclic"),
        Windowed(),
        Windowed(3),
        Windowed(4),
    ]
    assert with_attention(base, "partial_windowed").stages[0].attention == Windowed(5, shape="cyclic")


def test_one_configuration_in_all_stages_or_in_two() -> None:
    attention = Linformer(num_features=9, shared_projection=False)
    model = tiny(attention, img_size=64)
    assert [stage.attention for stage in model.config.stages] == [attention] * 4
    assert sum(isinstance(module, LinformerAttention) for module in model.modules()) == 7
    partial = tiny(attention, partial=True, img_size=64)
    assert [stage.attention for stage in partial.config.stages] == [attention, attention, Full(), Full()]
    assert partial.config.global_pool == "avg"


def test_other_options_go_with_a_mechanism() -> None:
    model = tiny("linformer", img_size=(64, 96), in_chans=2)
    assert (model.config.image_size, model.config.in_chans, model.config.num_classes) == ((64, 96), 2, 3)
    assert model(noise(1, 2, 64, 96, dtype=torch.float32)).shape == (1, 3)
    given = config(position="absolute")
    model = cast(VisionLongformer, create_model(NANO, config=given, attention=Performer(7)))
    assert model.config == with_attention(given, Performer(7))
    assert model.config.num_classes == 5


def test_timm_takes_a_mechanism_too() -> None:
    model = timm.create_model(NANO, attention="performer", partial=True, num_classes=3)
    assert model.config.stages[0].attention == PERFORMER
    assert model.config.stages[3].attention == Full()
    features = timm.create_model(NANO, attention=SpatialReduction(3), features_only=True)
    shapes = [x.shape[1:] for x in features.eval()(noise(1, 3, 61, 37, dtype=torch.float32))]
    assert shapes == [(32, 16, 10), (64, 8, 5), (128, 4, 3), (256, 2, 2)]


def test_global_only_pools_the_first_global_token() -> None:
    model = tiny("global_only")
    assert model.global_pool == "token"
    images = noise(1, 3, 61, 37, dtype=torch.float32)
    ((features, tokens),) = model.forward_intermediates(
        images, indices=1, norm=True, intermediates_only=True, return_prefix_tokens=True
    )
    assert tokens.shape == (1, 16, 256)
    assert torch.equal(model(images), model.head(tokens[:, 0]))
    assert features.shape == (1, 256, 2, 2)
    assert tiny("global_only", global_pool="avg").global_pool == "avg"


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attention", "options", "message"),
    [
        ("linfomer", {}, "attention='linfomer': there is no such mechanism; did you mean 'linformer'? they are window"),
        ("swin", {}, "attention='swin': there is no such mechanism; "),
        ("linfomer", {"partial": True}, "attention='linfomer': there is no such mechanism; did you mean 'linformer'?"),
        ("full", {"partial": True}, "attention='full': has no partial form, as partial models have full attention any"),
        (None, {"partial": True}, "partial=True: say which mechanism with attention=..."),
        (7, {}, "attention=7: must be the name of a mechanism or its configuration"),
        (Windowed, {}, "attention=<class 'vision_longformer.config.Windowed'>: must be the name of a mechanism or its"),
    ],
)
def test_refusals(attention: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        create_model(NANO, attention=attention, **options)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("attention", ["performer", "linformer", "spatial_reduction", Performer(7)])
def test_a_model_with_relative_positions_is_refused_in_one_sentence(attention: Any) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        create_model("vision_longformer_nano", attention=attention)
    kind = type(with_attention(CONFIGS[NANO], attention).stages[0].attention).__name__
    assert str(error.value) == (
        f"attention={attention!r} in stage 1: position='relative': {kind} attention has no biases by relative "
        "position: use 'absolute'"
    )


def test_three_stages_take_the_settings_of_the_first_three() -> None:
    base = config(*(Windowed(2),) * 3, position="absolute")
    assert [stage.attention for stage in with_attention(base, "spatial_reduction").stages] == [
        SpatialReduction(16),
        SpatialReduction(8),
        SpatialReduction(4),
    ]


# --- files --------------------------------------------------------------------------------------------------------

SAVED: dict[str, Any] = {
    "linformer": {"attention": Linformer(num_features=5, shared_projection=False), "img_size": (64, 96)},
    "spatial reduction": {"attention": "spatial_reduction_32"},
    "performer": {"attention": "performer", "partial": True},
    "global only": {"attention": "global_only"},
}


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_model_is_loaded_as_it_was(name: str, tmp_path: Path) -> None:
    model = tiny(**SAVED[name])
    save(model, tmp_path / "model.safetensors")
    save(model, tmp_path / "hub")
    loaded = load(tmp_path / "model.safetensors")
    hub = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    images, state = noise(1, 3, 61, 37, dtype=torch.float32), model.state_dict()
    for other in (loaded, hub):
        assert other.config == model.config
        assert other.state_dict().keys() == state.keys()
        assert all(torch.equal(tensor, state[key]) for key, tensor in other.state_dict().items())
        # tensors of a file lie at other addresses, where sums may be taken in another order
        torch.testing.assert_close(other(images), model(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_configuration_survives_being_written_down(name: str) -> None:
    changed = with_attention(CONFIGS[SMALL], name)
    assert ModelConfig.from_dict(changed.to_dict()) == changed
