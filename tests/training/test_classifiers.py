from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from training.cases import SIZE, tiny
from vision_longformer import Full, ModelConfig, Performer, VisionLongformer, Windowed, create_model
from vision_longformer.datasets.options import InputOptions
from vision_longformer.training.classifiers import build_model, preprocessing_of, save_weights, start_from
from vision_longformer.training.config import ModelOptions
from vision_longformer.training.weight_files import load_weights
from vision_longformer.weights import save

CLASSES = ("blue", "green", "red")
RESNET = ModelOptions(name="resnet10t", options={"channels": [8, 8, 8, 8], "stem_width": 8}, drop_path_rate=0.0)


def of(config: dict[str, Any], *, classes: int = 3, size: int = SIZE, seed: int = 0) -> VisionLongformer:
    torch.manual_seed(seed)
    options = ModelOptions(name="vision_longformer_nano", options={"config": config})
    model = build_model(options, num_classes=classes, size=size)
    assert isinstance(model, VisionLongformer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def differing(model: nn.Module, source: nn.Module) -> set[str]:
    """Return the names of entries that are not bit-equal."""
    own, other = model.state_dict(), source.state_dict()
    return {name for name in own if name not in other or not torch.equal(own[name], other[name])}


@pytest.fixture
def source(tmp_path: Path) -> tuple[VisionLongformer, Path]:
    model = of(tiny(), seed=1)
    return model, save(model, tmp_path / "source.safetensors", class_names=CLASSES)


def test_a_model_of_the_same_kind_and_classes_starts_with_every_bit(source: tuple[VisionLongformer, Path]) -> None:
    model = of(tiny())
    assert start_from(model, source[1], classes=CLASSES) == []
    assert differing(model, source[0]) == set()
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("classes", [("blue", "green"), ("blue", "green", "violet"), ("green", "blue", "red")])
def test_other_classes_leave_the_head_untrained_and_nothing_else(
    classes: tuple[str, ...], source: tuple[VisionLongformer, Path]
) -> None:
    model = of(tiny(), classes=len(classes))
    untrained = copy.deepcopy(model)
    remarks = start_from(model, source[1], classes=classes)
    assert remarks == [f"head: untrained, as the classes are others (3 before, {len(classes)} here)"]
    assert differing(model, source[0]) == {"head.weight", "head.bias"}
    assert differing(model, untrained).isdisjoint({"head.weight", "head.bias"})


def test_another_image_size_resizes_the_tables_that_are_named_and_nothing_else(
    source: tuple[VisionLongformer, Path],
) -> None:
    model = of(tiny(), size=48)
    remarks = start_from(model, source[1], classes=CLASSES)
    resized = differing(model, source[0])
    assert resized == {"stages.2.blocks.0.attn.position.table"}  # of full attention
    assert remarks == [f"{name}: resized from images of 24×24 to 48×48" for name in resized]
    expected = copy.deepcopy(source[0])
    expected.set_input_size((48, 48))
    assert differing(model, expected) == set()


def test_another_window_resizes_its_tables_and_nothing_else(source: tuple[VisionLongformer, Path]) -> None:
    model = of(tiny(Windowed(window_size=3), Performer(num_features=5), Full()))
    remarks = start_from(model, source[1], classes=CLASSES)
    name = "stages.0.blocks.0.attn.position.table"
    assert remarks == [f"{name}: resized from windows of 2 to 3"]
    assert differing(model, source[0]) == {name}
    table, before = (m.state_dict()[name] for m in (model, source[0]))
    assert torch.allclose(table[len(table) // 2], before[len(before) // 2])  # a token's bias towards itself


def test_size_windows_and_classes_at_once(source: tuple[VisionLongformer, Path]) -> None:
    model = of(tiny(Windowed(window_size=3), Performer(num_features=5), Full()), size=48, classes=4)
    remarks = start_from(model, source[1], classes=("a", "b", "c", "d"))
    named = {remark.split(":")[0] for remark in remarks}
    assert named == {"stages.2.blocks.0.attn.position.table", "stages.0.blocks.0.attn.position.table", "head"}
    assert differing(model, source[0]) - {"head.weight", "head.bias"} == named - {"head"}


def test_another_architecture_is_refused_with_every_entry_that_does_not_fit(
    source: tuple[VisionLongformer, Path],
) -> None:
    model = of(tiny(Windowed(window_size=2), Full(), Full()))
    untouched = copy.deepcopy(model)
    with pytest.raises(ValueError, match="does not fit the model") as error:
        start_from(model, source[1], classes=CLASSES)
    assert "unexpected: stages.1.blocks.0.attn.projection" in str(error.value)
    assert "missing: stages.1.blocks.0.attn.position.table" in str(error.value)
    assert differing(model, untouched) == set()


def test_only_files_and_models_of_this_library_fit(source: tuple[VisionLongformer, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        start_from(of(tiny()), tmp_path / "other.safetensors", classes=CLASSES)
    with pytest.raises(ValueError, match="has no weights that fit this model"):
        start_from(build_model(RESNET, num_classes=3, size=32), source[1], classes=CLASSES)


def test_a_model_of_timm_starts_from_its_own_kind(tmp_path: Path) -> None:
    source = build_model(RESNET, num_classes=3, size=32)
    save_weights(source, tmp_path / "x.safetensors", options=RESNET, inputs=InputOptions(size=32), classes=CLASSES)
    model = build_model(RESNET, num_classes=5, size=32)
    remarks = start_from(model, tmp_path / "x.safetensors", classes=("a", "b", "c", "d", "e"))
    assert remarks == ["fc.weight: untrained", "fc.bias: untrained"]
    assert differing(model, source) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (ModelOptions(name="vision_longformer_nano", options={"config": tiny()}), SIZE),
        (ModelOptions(name="vision_longformer_nano_ape"), 32),
        (RESNET, 32),
        (ModelOptions(name="test_vit"), 160),
    ],
    ids=lambda value: value.name if isinstance(value, ModelOptions) else "",
)
def test_saved_weights_give_the_same_logits_and_tell_how_to_use_them(
    options: ModelOptions, size: int, tmp_path: Path
) -> None:
    model = build_model(options, num_classes=3, size=size).eval()
    inputs = InputOptions(size=size, crop_share=0.7, interpolation="bilinear")
    save_weights(model, tmp_path / "best.safetensors", options=options, inputs=inputs, classes=CLASSES)
    found = load_weights(tmp_path / "best.safetensors")
    images = torch.randn(2, 3, size, size)
    assert differing(found.model, model) == set()
    assert torch.allclose(found.model(images), model(images), atol=1e-6)
    assert not found.model.training
    assert found.classes == CLASSES
    assert {**found.preprocessing, "mean": None, "std": None} == {
        "mean": None,
        "std": None,
        "interpolation": "bilinear",
        "crop_pct": 0.7,
        "size": size,
    }
    expected = preprocessing_of(model, inputs)
    for key in ("mean", "std"):
        assert list(found.preprocessing[key]) == list(expected[key])


@pytest.mark.parametrize(("size", "share"), [(224, 0.875), (383, 0.875), (384, 0.922)])
def test_the_share_that_evaluation_crops_follows_the_size(size: int, share: float) -> None:
    model = create_model("vision_longformer_nano")
    assert preprocessing_of(model, InputOptions(size=size))["crop_pct"] == share
    assert preprocessing_of(model, InputOptions(size=size, crop_share=1.0))["crop_pct"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ModelOptions(name="vision_longformer_nono"), "did you mean 'vision_longformer_nano'"),
        (ModelOptions(name="vision_longformer_nano", options={"atention": "full"}), "atention"),
        (ModelOptions(name="resnet10t", options={"widths": [8]}), "resnet10t cannot be built so"),
    ],
)
def test_a_model_that_there_is_not_is_refused(options: ModelOptions, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(options, num_classes=3, size=SIZE)


def test_timms_models_without_drop_path_can_be_built_where_the_recipe_has_none() -> None:
    model = build_model(ModelOptions(name="dla46_c", drop_path_rate=0.0), num_classes=3, size=32)
    assert model.num_classes == 3


def test_timms_models_that_do_not_take_the_size_are_refused_before_training() -> None:
    with pytest.raises(ValueError, match=r"vit_tiny_patch16_224 cannot take images of 64×64 .*img_size: 64"):
        build_model(ModelOptions(name="vit_tiny_patch16_224"), num_classes=3, size=64)
    build_model(ModelOptions(name="vit_tiny_patch16_224", options={"img_size": 64, "depth": 1}), num_classes=3, size=64)


def test_the_configuration_of_a_recipe_takes_size_and_classes_of_the_run() -> None:
    model = of(tiny(), classes=7, size=48)
    assert model.config.image_size == (48, 48)
    assert model.num_classes == 7
    assert isinstance(model.config, ModelConfig)
