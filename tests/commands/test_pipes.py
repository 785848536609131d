"""A pipe, to which nobody may ever write, is named by every command, which goes on or ends at once."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.cases import make_images, recipe
from vil import main
from vision_longformer.training.recipes import write_recipe

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
NO_FILE = "pipe.png: it is no ordinary file, but a pipe or device"
LONGEST = 120  # seconds


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with a good image and a pipe; whatever waits for the pipe is ended."""

    def end(*_: object) -> None:
        raise TimeoutError("something waits for a pipe")

    make_images(tmp_path / "data", train=3, val=2)
    shutil.copy(tmp_path / "data/val/red/0.png", tmp_path / "good.png")
    os.mkfifo(tmp_path / "pipe.png")
    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LONGEST)
    yield tmp_path
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def vil(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_encoding_and_planning_name_it_and_go_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = folder / "pipe.png", folder / "good.png"
    options = "--model", "vision_longformer_nano", "--device", "cpu"
    assert vil("encode", *both, "--output", folder / "out", "--no-report", *options) == 1
    assert NO_FILE.removeprefix("pipe.png: ") in capsys.readouterr().err
    assert (folder / "out/good.png.safetensors").is_file()
    assert vil("plan", *both, *options) == 1
    shown = capsys.readouterr()
    assert NO_FILE in shown.out
    assert "good.png: 24×20 pixels" in shown.out
    assert vil("encode", folder, "--output", folder / "out", "--no-report", *options) == 0
    assert "that are no files" in capsys.readouterr().err


def test_training_evaluating_and_predicting_name_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "recipe.yaml").write_text(write_recipe(recipe(schedule={"epochs": 1, "warmup_epochs": 0})))
    rows = [f"{path.relative_to(folder)},{path.parent.name},{path.parts[-3]}" for path in folder.glob("data/*/*/*.png")]
    for split in ("train", "val"):
        (folder / "list.csv").write_text("\n".join(["path,label,split", f"pipe.png,red,{split}", *rows]))
        code = vil("train", "--recipe", folder / "recipe.yaml", "--data", folder / "list.csv", "--output", folder / "x")
        assert code == 2
        assert "pipe.png: no such file, or a pipe" in capsys.readouterr().err
        assert not (folder / "x").exists()
    run = folder / "run"
    assert vil("train", "--recipe", folder / "recipe.yaml", "--data", folder / "data", "--output", run) == 0
    weights = run / "best.safetensors"
    capsys.readouterr()
    assert vil("evaluate", weights, "--data", folder / "list.csv") == 1
    assert "pipe.png" in capsys.readouterr().err
    assert vil("predict", weights, folder / "pipe.png", folder / "good.png") == 1
    shown = capsys.readouterr()
    assert NO_FILE in shown.err
    assert "good.png" in shown.out
    os.mkfifo(folder / "pipe.safetensors")
    assert vil("predict", folder / "pipe.safetensors", folder / "good.png") == 2
    assert "pipe.safetensors: is no file" in capsys.readouterr().err


def test_annotations_are_not_waited_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "coco/train").mkdir(parents=True)
    os.mkfifo(folder / "coco/train.json")
    code = vil("train", "--task", "detection", "--data", folder / "coco", "--output", folder / "x")
    assert code == 2
    assert "coco/train: has no image with a label" in capsys.readouterr().err
