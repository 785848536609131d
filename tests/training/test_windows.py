"""Training on windows of large rasters, from labels of every kind; class weights; an end before the last epoch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from datasets.raster_cases import make_index, make_polygons
from training.cases import asked_at, disturb, outcome, run
from training.dense_cases import dense_recipe
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.recipes import build
from vision_longformer.training.tasks import build_task
from vision_longformer.training.weight_files import load_weights


def windows_recipe(task: str = "semantic_segmentation", **groups: dict[str, Any]) -> TrainConfig:
    """Return a run of two epochs of two steps, on windows of four bands."""
    dense = {"window": 32, "windows_per_epoch": 4, "crop": None, "scale": [0.8, 1.25], **groups.pop("dense", {})}
    return dense_recipe(
        task,
        schedule={"epochs": 2, "warmup_epochs": 0, "random_shift": False, **groups.pop("schedule", {})},
        input={"channels": [0, 1, 2, 3], "check": "auto", **groups.pop("input", {})},
        dense={**dense_recipe(task).to_dict()["dense"], **dense},
        augmentation={"color_jitter": 0.0, "vertical_flip": 0.5},
        **groups,
    )


@pytest.mark.parametrize(
    ("task", "make"),
    [
        ("semantic_segmentation", make_index),
        ("semantic_segmentation", make_polygons),
        ("instance_segmentation", make_polygons),
    ],
)
def test_any_task_learns_from_windows(task: str, make: Any, tmp_path: Path) -> None:
    events = run(windows_recipe(task), make(tmp_path / "data"), tmp_path / "run")
    begun = next(event for event in events if event.kind == "begun")
    assert (begun.values["images"], begun.values["steps"]) == (4, 4)
    remarks = [event.values["text"] for event in events if event.kind == "remark"]
    grid = 25 if make is make_index else 35
    expected = f"windows of 32×32 pixels: 4 an epoch, drawn from 1 image; {grid} of a grid for evaluation"
    assert expected in remarks
    trained = load_weights(tmp_path / "run" / "best.safetensors")
    assert trained.preprocessing["window"] == 32
    assert trained.preprocessing["side"] is None
    assert trained.preprocessing["scale"] == 1
    assert len(trained.read(tmp_path / "data", "val")) == grid


@pytest.mark.parametrize("stop", [1, 3])
def test_an_interrupted_run_on_windows_ends_with_the_same_weights(stop: int, tmp_path: Path) -> None:
    data = make_index(tmp_path / "data", nodata=0)
    run(windows_recipe(), data, tmp_path / "whole")
    disturb()
    assert run(windows_recipe(), data, tmp_path / "cut", should_stop=asked_at(20 + stop))[-1].kind == "stopped"
    disturb()
    run(windows_recipe(), data, tmp_path / "cut")
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_windows_depend_on_the_epoch_and_on_nothing_else(tmp_path: Path) -> None:
    task = build_task(windows_recipe(), make_index(tmp_path))
    from vision_longformer.datasets.loaders import Key

    data = task.training_data(task.build_model())
    one, again, other, later = (data[Key(*key)][0] for key in ((0, 1, 0), (0, 1, 0), (0, 2, 0), (1, 1, 0)))
    assert torch.equal(one.image, again.image)
    assert torch.equal(one.semantic, again.semantic)
    for different in (other, later):
        assert one.image.shape != different.image.shape or not torch.equal(one.image, different.image)


def test_a_recipe_with_windows_is_checked(tmp_path: Path) -> None:
    values = {"task": "detection", "dense": {"window": 32, "crop": 16}}
    with pytest.raises(ValueError, match=r"dense\.crop=16: dense\.window is cut already"):
        build(values)
    with pytest.raises(ValueError, match=r"dense\.class_weights='rare': must be balanced, or numbers from 0 on"):
        build({"dense": {"class_weights": "rare"}})
    task = build_task(windows_recipe(dense={"class_weights": [1, 2]}), make_index(tmp_path))
    with pytest.raises(ValueError, match=r"there must be one for each of the 3 classes \(ground, water, roof\)"):
        task.build_model()


def test_weights_of_classes_weigh_the_loss(tmp_path: Path) -> None:
    task = build_task(windows_recipe(dense={"class_weights": "balanced"}), make_index(tmp_path))
    model: Any = task.build_model()
    pixels = torch.tensor([150 * 140 - 2000 - 36, 2000, 36], dtype=torch.float32)
    torch.testing.assert_close(model.class_weights, pixels.sum() / (3 * pixels))
    assert not any("class_weights" in name for name in model.state_dict())
    images, labels = torch.rand(1, 4, 32, 32), torch.randint(0, 3, (1, 32, 32))
    labels[0, :5] = 255
    model.eval()
    expected = F.cross_entropy(model.logits(images), labels, weight=model.class_weights, ignore_index=255)
    torch.testing.assert_close(model(images, None, labels)["cross_entropy"], expected)


def test_a_run_without_a_better_evaluation_ends_early_and_once(tmp_path: Path) -> None:
    data = make_index(tmp_path / "data")
    optimizer, schedule = {"learning_rate": 1e-12, "ema_decay": None}, {"epochs": 9, "patience": 2}
    recipe = windows_recipe(optimizer=optimizer, schedule=schedule)
    events = run(recipe, data, tmp_path / "run")
    evaluated = [event.values["epoch"] for event in events if event.kind == "evaluated"]
    assert evaluated == [1, 2, 3]
    assert any("no evaluation was better than that after epoch 1" in str(event.values) for event in events)
    assert events[-1].kind == "finished"
    again = run(recipe, data, tmp_path / "run")
    assert not [event for event in again if event.kind in ("step", "evaluated")]
    assert math.isclose(again[-1].values["best"], events[-1].values["best"])
