"""`vil export`."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from model_helpers import noise, relative_error
from vil import main
from vision_longformer import create_model, load, save
from vision_longformer.commands import export as command

pytestmark = pytest.mark.export


def test_weights_become_a_file_for_other_runtimes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    onnxruntime = pytest.importorskip("onnxruntime")
    weights, target = tmp_path / "nano.safetensors", tmp_path / "new" / "nano.onnx"
    save(create_model("vision_longformer_nano", num_classes=7), weights, class_names=[*"abcdefg"])  # type: ignore[arg-type]
    assert main(["export", str(weights), "--output", str(target), "--size", "40x64", "--fixed"]) == 0
    captured = capsys.readouterr()
    assert captured.out == (
        f"{target}: takes one image of 40×64 pixels, gives logits.\n"
        "In its metadata: mean 0.485, 0.456, 0.406 and deviation 0.229, 0.224, 0.225 of pixels from 0 to 1; "
        "7 class names, a, b, c, ….\n"
    )
    assert captured.err == ""
    images = noise(1, 3, 40, 64, dtype=torch.float32)
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["class_names"]) == [*"abcdefg"]
    assert json.loads(said["mean"]) == [0.485, 0.456, 0.406]
    assert json.loads(said["std"]) == [0.229, 0.224, 0.225]
    with torch.no_grad():
        actual = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
        assert relative_error(actual, load(weights)(images)) <= 1e-4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["vision_longformer_nan"], "vision_longformer_nan: is neither a file nor a model"),
        (["vision_longformer_nano", "--size", "0"], "size '0': height and width must be at least 1 pixel"),
        (["vision_longformer_nano", "--size", "large"], "size 'large': write a number of pixels"),
        (["mine.safetensors"], "mine.safetensors"),
    ],
)
def test_usage_errors_are_one_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "require_onnx", lambda: None)
    (tmp_path / "mine.safetensors").write_text("no weights")
    assert main(["export", *arguments, "--output", "model.onnx"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert sentence in error
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]


def test_an_output_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    assert main(["export", "vision_longformer_nano", "--output", str(tmp_path)]) == 2
    assert f"--output {tmp_path}: is a folder, not a file" in capsys.readouterr().err
    (tmp_path / "file").write_text("mine")
    assert main(["export", "vision_longformer_nano", "--output", str(tmp_path / "file" / "model.onnx")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else found(name))
    assert main(["export", "vision_longformer_nano", "--output", "model.onnx"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'vision-longformer[onnx]'" in error
