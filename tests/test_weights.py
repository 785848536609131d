from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import vision_longformer
from vision_longformer import GlobalOnly, ModelConfig, StageConfig, VisionLongformer, Windowed
from vision_longformer.utils.tensor_files import DIGEST_KEY
from vision_longformer.weights import load, save

CONFIG = ModelConfig(
    stages=(
        StageConfig(1, 8, 2, 4, 2, "relative", Windowed(window_size=3, shape="exact")),
        StageConfig(1, 12, 3, 2, 1, "absolute", GlobalOnly(shared_global_projections=False)),
        StageConfig(2, 16, 2, 2, 1, "relative", Windowed(window_size=2, shape="cyclic", neighbours="random")),
    ),
    image_size=(40, 56),
    in_chans=2,
    num_classes=3,
    global_pool="token",
    drop_path_rate=0.1,
)
NAMES = ["red cell", "white cell", "platelet"]


@pytest.fixture
def model() -> VisionLongformer:
    model = VisionLongformer(CONFIG)
    model.pretrained_cfg = {"mean": (0.1, 0.2), "std": (0.3, 0.4), "crop_pct": 0.9}
    return model


@pytest.mark.parametrize("name", ["weights.safetensors", "folder"])
def test_loaded_model_is_the_saved_one(model: VisionLongformer, tmp_path: Path, name: str) -> None:
    save(model, tmp_path / name, class_names=NAMES)
    loaded = load(tmp_path / name)
    assert loaded.config == CONFIG
    assert not loaded.training
    assert loaded.pretrained_cfg["label_names"] == NAMES
    assert tuple(loaded.pretrained_cfg["mean"]) == (0.1, 0.2)
    assert loaded.pretrained_cfg["crop_pct"] == 0.9
    assert loaded.pretrained_cfg["interpolation"] == "bicubic"
    images = torch.randn(2, 2, 37, 61)
    assert torch.equal(loaded(images), model.eval()(images))
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_saving_again_keeps_names_and_precision(model: VisionLongformer, tmp_path: Path) -> None:
    save(model.double(), tmp_path / "a.safetensors", class_names=NAMES)
    save(load(tmp_path / "a.safetensors"), tmp_path / "b.safetensors")
    again = load(tmp_path / "b.safetensors")
    assert again.pretrained_cfg["label_names"] == NAMES
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float64}


@pytest.mark.parametrize("name", ["vision_longformer_nano", "vision_longformer_nano_ape_full"])
def test_timm_reads_a_folder(name: str, tmp_path: Path) -> None:
    model = vision_longformer.create_model(name, num_classes=3, img_size=96).eval()
    assert isinstance(model, VisionLongformer)
    save(model, tmp_path / "hub", class_names=NAMES)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    images = torch.randn(1, 3, 64, 80)
    assert torch.equal(loaded(images), model(images))
    assert loaded.pretrained_cfg["label_names"] == NAMES
    assert loaded.pretrained_cfg["architecture"] == name
    assert timm.create_model(f"local-dir:{tmp_path / 'hub'}", num_classes=7)(images).shape == (1, 7)


def test_timm_reads_a_folder_of_a_configuration_without_name(model: VisionLongformer, tmp_path: Path) -> None:
    save(model, tmp_path / "hub")
    loaded = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    images = torch.randn(1, 2, 33, 49)
    assert torch.equal(loaded(images), model.eval()(images))


def test_wrong_number_of_class_names(model: VisionLongformer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 2 names for 3 classes"):
        save(model, tmp_path / "x.safetensors", class_names=NAMES[:2])
    assert list(tmp_path.iterdir()) == []


def test_pruned_model_is_refused(model: VisionLongformer, tmp_path: Path) -> None:
    model.prune_intermediate_layers(1)
    model.prune_intermediate_layers([0])
    with pytest.raises(ValueError, match="only 1 of its 3 stages"):
        save(model, tmp_path / "x.safetensors")


def test_interrupted_write_leaves_the_old_file(
    model: VisionLongformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(model, tmp_path / "x.safetensors")
    before = path.read_bytes()

    def half(file: Any, data: memoryview) -> None:
        file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vision_longformer.utils.tensor_files.write_whole", half)
    with pytest.raises(OSError, match="No space left"):
        save(model, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def rewrite(path: Path, **changes: Any) -> None:
    """Change a file's metadata or tensors, as a program does that knows nothing of digests."""
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del metadata[DIGEST_KEY]
    save_file(changes.get("tensors", tensors), path, metadata=changes.get("metadata", metadata))


def test_bad_files_are_named(model: VisionLongformer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors: no such file"):
        load(tmp_path / "nothing.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    with pytest.raises(ValueError, match=r"text\.safetensors: cannot be read as safetensors"):
        load(text)
    path = save(model, tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"x\.safetensors: cannot be read as safetensors"):
        load(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "do not say which model"),
        ({"vision_longformer": "{"}, "metadata is damaged"),
        ({"vision_longformer": json.dumps({"format_version": 99})}, "format_version is 99"),
        ({"vision_longformer": json.dumps({"format_version": 1})}, "damaged: 'config'"),
        ({"vision_longformer": '{"format_version": 1, "config": {"stages": []}}'}, "stages=0: must be 3 or 4"),
    ],
)
def test_bad_metadata_are_explained(
    model: VisionLongformer, tmp_path: Path, metadata: dict[str, str], message: str
) -> None:
    path = save(model, tmp_path / "x.safetensors")
    rewrite(path, metadata=metadata)
    with pytest.raises(ValueError, match=message):
        load(path)


def test_every_entry_that_does_not_fit_is_listed(model: VisionLongformer, tmp_path: Path) -> None:
    path = save(model, tmp_path / "x.safetensors")
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors["extra"] = tensors.pop("head.bias")
    tensors["norm.weight"] = torch.ones(5)
    rewrite(path, tensors=tensors)
    with pytest.raises(ValueError, match="does not fit") as raised:
        load(path)
    lines = str(raised.value).split("\n")[1:]
    assert lines == [
        "  missing: head.bias (3,)",
        "  unexpected: extra (3,)",
        "  misshapen: norm.weight is (5,), expected (16,)",
    ]
