"""Weights of the package: found by name, checked before use, halved without harm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from training.cases import tiny
from vision_longformer import VisionLongformer, create_model, list_models, load, pretrained, save
from vision_longformer.config import ModelConfig
from vision_longformer.pretrained import DamagedWeightsError, Shipped, find_weights, shipped
from vision_longformer.weights import halve


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return save(VisionLongformer(ModelConfig.from_dict(tiny())), tmp_path / "full.safetensors")


@pytest.fixture
def package(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of weights in place of the package's own, with one entry, "cells"."""
    folder = tmp_path / "package"
    folder.mkdir()
    halve(weights, folder / "cells.safetensors")
    digest = hashlib.sha256((folder / "cells.safetensors").read_bytes()).hexdigest()
    entry = {"sha256": digest, "task": "classification", "summary": "Cells.", "tag": None}
    (folder / "weights.json").write_text(json.dumps({"cells": entry}))
    monkeypatch.setattr(pretrained, "FOLDER", folder)
    monkeypatch.setattr(pretrained, "TABLE", folder / "weights.json")
    shipped.cache_clear()
    yield folder
    shipped.cache_clear()


def test_weights_are_found_by_name_or_path(package: Path, weights: Path) -> None:
    assert find_weights("cells") == package / "cells.safetensors"
    assert find_weights(weights) == weights
    assert load(find_weights("cells")).config == load(weights).config


def test_an_unknown_name_is_told_which_there_are(package: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nucleus: no such file; weights that come with the package: cells"):
        find_weights("nucleus")


@pytest.mark.parametrize("place", [8, 1000, -1])
def test_one_changed_bit_is_noticed(package: Path, place: int) -> None:
    data = bytearray((package / "cells.safetensors").read_bytes())
    data[place] ^= 1
    (package / "cells.safetensors").write_bytes(data)
    with pytest.raises(DamagedWeightsError, match=r"cells\.safetensors: is damaged .* install the package again"):
        find_weights("cells")


def test_a_missing_file_is_noticed(package: Path) -> None:
    (package / "cells.safetensors").unlink()
    with pytest.raises(DamagedWeightsError, match=r"No such file.*install the package again"):
        find_weights("cells")


def test_halved_weights_are_those_of_float16_and_come_back_as_float32(package: Path, weights: Path) -> None:
    full, halved = load(weights).state_dict(), load(package / "cells.safetensors").state_dict()
    assert full.keys() == halved.keys()
    for name, tensor in full.items():
        assert halved[name].dtype == tensor.dtype
        expected = tensor.half().float() if tensor.dtype == torch.float32 else tensor
        assert torch.equal(halved[name], expected), name
    with safe_open(package / "cells.safetensors", framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} <= {torch.float16, torch.int64}  # noqa: SIM118


def test_weights_that_are_too_large_for_float16_are_refused(tmp_path: Path) -> None:
    model = VisionLongformer(ModelConfig.from_dict(tiny()))
    with torch.no_grad():
        model.head.bias[0] = 1e6  # type: ignore[operator]
    source = save(model, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"head\.bias does not fit into float16"):
        halve(source, tmp_path / "y.safetensors")
    assert not (tmp_path / "y.safetensors").exists()


def test_models_without_weights_say_so() -> None:
    for name in ("vision_longformer_nano_ape", "vision_longformer_swin_small_full"):
        assert name not in list_models(pretrained=True)
        with pytest.raises(ValueError, match=rf"pretrained=True: {name} has no trained weights; these models have: "):
            create_model(name, pretrained=True)


@pytest.mark.parametrize("entry", shipped().values(), ids=shipped())
def test_everything_that_is_listed_is_there_whole_and_described(entry: Shipped) -> None:
    assert entry.checked_path().stat().st_size < 20e6
    card = entry.card.read_text(encoding="utf-8")
    for word in ("Data", "Licence", "Limits"):
        assert word in card
