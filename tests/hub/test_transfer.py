"""Models in folders, and on a hub that is played by what the test writes down."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import yaml
from huggingface_hub import HfApi
from timm.models import save_for_hf

from model_helpers import noise
from vision_longformer import Full, ModelConfig, StageConfig, VisionLongformer, Windowed, create_model, load, save
from vision_longformer.hub import transfer

CONFIG = ModelConfig(
    stages=(
        StageConfig(1, 8, 2, 4, 1, "relative", Windowed(window_size=3)),
        StageConfig(1, 12, 3, 2, 1, "relative", Windowed(window_size=2)),
        StageConfig(1, 16, 2, 2, 0, "absolute", Full()),
    ),
    image_size=(40, 56),
    num_classes=3,
)
SAVED_BY_TIMM: dict[str, dict[str, Any]] = {
    "named": {"num_classes": 5, "in_chans": 2, "img_size": (64, 96), "global_pool": "avg"},
    "config": {"config": CONFIG, "num_classes": 4},
    "attention": {"attention": "global_only", "partial": True},
    "changed later": {"num_classes": 2},
}
NAMES = ["red cell", "white cell", "platelet"]


def small(**changes: Any) -> VisionLongformer:
    torch.manual_seed(0)
    model = create_model("vision_longformer_nano", config=CONFIG, **changes)
    assert isinstance(model, VisionLongformer)
    return model.eval()


def same(one: VisionLongformer, other: VisionLongformer) -> bool:
    images = noise(2, one.in_chans, 37, 61, dtype=torch.float32)
    return one.config == other.config and torch.equal(one(images), other(images))


@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_what_is_saved_is_read_by_ours_and_by_timm(prefix: str, tmp_path: Path) -> None:
    model = small()
    weights = model.save_pretrained(tmp_path / "cells", class_names=NAMES)
    assert weights == tmp_path / "cells" / "model.safetensors"
    assert sorted(file.name for file in weights.parent.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    ours = VisionLongformer.from_pretrained(f"{prefix}{tmp_path / 'cells'}")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'cells'}", pretrained=True).eval()
    for read in (ours, theirs):
        assert same(read, model)
        assert not read.training
        assert read.pretrained_cfg["label_names"] == NAMES


def test_a_weight_file_is_read_too(tmp_path: Path) -> None:
    save(small(), tmp_path / "x.safetensors")
    assert same(VisionLongformer.from_pretrained(tmp_path / "x.safetensors"), small())


@pytest.mark.parametrize("option", SAVED_BY_TIMM)
def test_what_timm_saves_is_read(option: str, tmp_path: Path) -> None:
    model = create_model("vision_longformer_nano", **SAVED_BY_TIMM[option]).eval()
    assert isinstance(model, VisionLongformer)
    if option == "changed later":
        model.set_neighbours("own")
        model.reset_classifier(7)
    model.pretrained_cfg = model.pretrained_cfg | {"mean": (0.1, 0.2, 0.3)[: model.in_chans], "crop_pct": 0.9}
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    read = load(tmp_path)
    assert same(read, model)
    assert tuple(read.pretrained_cfg["mean"]) == tuple(model.pretrained_cfg["mean"])
    assert read.pretrained_cfg["crop_pct"] == 0.9


def timms(folder: Path) -> Path:
    """Write a folder as timm does; return its configuration."""
    save_for_hf(small(), str(folder), safe_serialization=True, model_config={"label_names": NAMES})
    return folder / "config.json"


def test_class_names_that_timm_saved(tmp_path: Path) -> None:
    timms(tmp_path)
    assert load(tmp_path).pretrained_cfg["label_names"] == NAMES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "resnet18"}, r"its architecture is 'resnet18', which is none of this library: timm.create"),
        ({"pretrained_cfg": 3}, "is not in timm's form"),
        ({"model_args": [1]}, r"is damaged: model_args=\[1\]: must be an object"),
        ({"model_args": {"depth": 3}}, "is damaged: depth: vision_longformer_nano has no such option"),
        ({"label_names": NAMES[:2]}, "is damaged: class_names: 2 names for 3 classes"),
        ({"model_args": {"num_classes": 3}}, "does not fit the model:\n"),
    ],
)
def test_damaged_configurations_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = timms(tmp_path)
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with pytest.raises(ValueError, match=f"{tmp_path}.*{message}"):
        load(tmp_path)


def test_missing_and_broken_configurations_are_named(tmp_path: Path) -> None:
    config = timms(tmp_path)
    config.write_text("{")
    with pytest.raises(ValueError, match="json: is damaged"):
        load(tmp_path)
    config.unlink()
    with pytest.raises(ValueError, match="json: cannot be read \\(No such file or directory\\); it says which model"):
        load(tmp_path)


@pytest.mark.parametrize("source", ["nowhere", "local-dir:a/b", "a/b/c"])
def test_what_is_no_folder_and_no_name_of_the_hub_is_refused(source: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"{source}: no such folder, and no name of a model on the hub"):
        VisionLongformer.from_pretrained(source)


@pytest.mark.parametrize("source", ["hf-hub:ann/cells", "ann/cells", "ann/cells@v2"])
def test_models_of_the_hub_are_downloaded(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(repo_id: str, **options: Any) -> str:
        asked.update(options, repo_id=repo_id)
        return str(tmp_path)

    small().save_pretrained(tmp_path)
    monkeypatch.setattr(transfer, "snapshot_download", download)
    read = VisionLongformer.from_pretrained(source, token="secret", cache_dir="here")
    assert same(read, small())
    assert (asked["repo_id"], asked["token"], asked["cache_dir"]) == ("ann/cells", "secret", "here")
    assert asked["revision"] == ("v2" if "@" in source else None)
    assert asked["allow_patterns"] == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("has_card", [False, True])
def test_pushing_uploads_the_folder_and_leaves_a_card(
    has_card: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[str, Any] = {}

    def upload(_: HfApi, *, folder_path: str, **options: Any) -> str:
        calls["upload"] = options
        shutil.copytree(folder_path, tmp_path / "hub")
        return "https://hub/commit/1"

    def create(_: HfApi, repo_id: str, **options: Any) -> SimpleNamespace:
        calls["create"] = options
        return SimpleNamespace(repo_id=f"ann/{repo_id}")

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "file_exists", lambda *_, **__: has_card)
    monkeypatch.setattr(HfApi, "upload_folder", upload)

    address = small().push_to_hub("cells", private=True, revision="main", license="mit")

    assert address == "https://hub/commit/1"
    assert calls["create"] == {"private": True, "exist_ok": True}
    assert (calls["upload"]["repo_id"], calls["upload"]["revision"]) == ("ann/cells", "main")
    assert calls["upload"]["ignore_patterns"] == (["README.md"] if has_card else None)
    assert same(VisionLongformer.from_pretrained(tmp_path / "hub"), small())
    assert "# cells\n" in (tmp_path / "hub" / "README.md").read_text()


def test_a_card_says_what_the_weights_are(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path / "cells", class_names=NAMES, license="cc0-1.0", description="Blood cells.")
    text = (tmp_path / "cells" / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    said = yaml.safe_load(header)
    assert (said["library_name"], said["pipeline_tag"], said["license"]) == ("timm", "image-classification", "cc0-1.0")
    for words in ("# cells\n", "Blood cells.", "1×8, 1×12, 1×16", "3 classes: red cell, white cell, platelet"):
        assert words in body
    assert 'from_pretrained("OWNER/cells")' in body
    assert not re.search(r"[{}]", body.split("```bibtex")[0])


def test_a_card_does_not_invent(tmp_path: Path) -> None:
    small(num_classes=0).save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    assert "license" not in header
    assert header["pipeline_tag"] == "image-feature-extraction"
    assert "was not written down when they were saved" in text


def test_a_persons_card_stays(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    small().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
