"""Images of 1×1 to 33×33 pixels, of which some maps have a single token, from training to every result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prediction.cases import trained
from training.cases import plain, run
from training.dense_cases import TASKS, dense_recipe
from vil import main
from vision_longformer.features.load import load_features
from vision_longformer.prediction.predictor import Predictor

SIZES = ((1, 1), (1, 33), (33, 1), (2, 3), (31, 32), (32, 32), (33, 33))
ONCE: dict[str, Any] = {"schedule": {"epochs": 1, "warmup_epochs": 0}}


def write(path: Path, size: tuple[int, int], *, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)


def write_all(folder: Path) -> None:
    for number, size in enumerate(SIZES):
        write(folder / f"{size[0]}x{size[1]}.png", size, seed=number)


@pytest.mark.parametrize("kind", ["safetensors", "zarr"])
@pytest.mark.parametrize("batch", ["1", "auto"])
def test_they_are_encoded_in_every_stage(tmp_path: Path, kind: str, batch: str) -> None:
    write_all(tmp_path / "in")
    options = ("--model", "vision_longformer_nano", "--device", "cpu", "--no-report", "--format", kind)
    stages = ("--stages", "1", "2", "3", "4", "--batch", batch)
    assert main(["encode", str(tmp_path / "in"), "--output", str(tmp_path / "out"), *options, *stages]) == 0
    for height, width in SIZES:
        features = load_features(tmp_path / "out" / f"{height}x{width}.png.{kind}")
        assert [features.maps[number].shape[1:] for number in range(4)] == [
            (-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32)
        ]
        assert np.isfinite(features.maps[3][...]).all()


def test_they_train_and_are_classified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        for name in ("a", "b"):
            write_all(tmp_path / "data" / split / name)
    assert run(plain(**ONCE), tmp_path / "data", tmp_path / "run")[-1].kind == "finished"
    images = tmp_path / "data/val/a"
    assert main(["predict", str(tmp_path / "run/best.safetensors"), str(images), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == len(SIZES)
    assert all(sum(each["probability"] for each in entry["classes"]) == pytest.approx(1) for entry in found)


@pytest.mark.parametrize("task", TASKS)
def test_they_train_and_are_predicted_densely(task: str, tmp_path: Path) -> None:
    """Every image is one object, but for the smallest, which has none."""
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    for number, (height, width) in enumerate(SIZES):
        name = f"{height}x{width}.png"
        content["images"].append({"id": number, "file_name": name, "height": height, "width": width})
        corners = [0, 0, width, 0, width, height, 0, height]
        entry = {"id": number, "image_id": number, "category_id": 1, "bbox": [0, 0, width, height], "iscrowd": 0}
        if number:
            content["annotations"].append({**entry, "area": height * width, "segmentation": [corners]})
    for split in ("train", "val"):
        write_all(tmp_path / "data" / split)
        (tmp_path / f"data/{split}.json").write_text(json.dumps(content))
    config = dense_recipe(task, dense={"sides": None, "scale": [1.0, 1.0], "crop": None}, **ONCE)
    assert run(config, tmp_path / "data", tmp_path / "run")[-1].kind == "finished"
    predictor = Predictor(trained(task, tmp_path))
    for height, width in SIZES:
        result: Any = predictor(tmp_path / f"data/val/{height}x{width}.png")
        if task == "semantic_segmentation":
            assert result.labels.shape == (height, width)
        else:
            boxes = result.boxes.reshape(-1, 4)
            assert (boxes >= 0).all()
            assert (boxes <= (width, height) * 2).all()
