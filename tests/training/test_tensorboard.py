from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from training.cases import asked_at, make_images, recipe, run
from vision_longformer.training.checkpoints import Progress
from vision_longformer.training.run_folder import RunFolder


def test_events_hold_every_step_and_evaluation_once_after_an_interruption(tmp_path: Path) -> None:
    data = make_images(tmp_path / "data")
    config = recipe(logging={"tensorboard": True, "every_steps": 1})
    run(config, data, tmp_path / "run", should_stop=asked_at(6))
    run(config, data, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert {"train/loss", "train/learning_rate", "val/top1", "val/loss"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 13))
    assert [event.step for event in events.Scalars("val/top1")] == [4, 8, 12]


def test_without_tensorboard_the_run_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r'pip install "vision-longformer\[train\]"'):
        run(recipe(logging={"tensorboard": True}), make_images(tmp_path / "data"), tmp_path / "run")


@pytest.mark.parametrize("measure", ["val_top1", "val_box_ap", "val_miou"])
def test_an_evaluation_that_was_not_saved_is_forgotten(measure: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.append_metrics({"step": 4, "epoch": 0.8, "loss": 1.0})
    folder.append_metrics({"step": 4, "epoch": 1, measure: 0.5})
    folder.append_metrics({"step": 5, "epoch": 1.0, "loss": 1.0})
    folder.forget_metrics_after(Progress(step=4, evaluated_epochs=0))
    assert [line["epoch"] for line in folder.read_metrics()] == [0.8]
