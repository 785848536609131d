"""The folder of a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vision_longformer.training.config import TrainConfig
from vision_longformer.training.recipes import write_recipe
from vision_longformer.training.run_folder import RunFolder


def test_files_of_other_programs_stay_when_a_run_begins(tmp_path: Path) -> None:
    names = [".notes.tmp", ".last.safetensors.draft.tmp"]
    for name in names:
        (tmp_path / name).write_text("mine")
    folder = RunFolder(tmp_path)
    folder.lock()
    folder.write_text(folder.metrics, "")
    folder.unlock()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".lock", "metrics.jsonl", *names])


def test_another_trainer_is_kept_out_until_the_first_one_ends(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.lock()
    with pytest.raises(ValueError, match="another trainer works in this folder"):
        second.lock()
    first.unlock()
    second.lock()
    second.unlock()


def test_runs_leave_no_callbacks_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin_and_end() -> None:
        folder = RunFolder(tmp_path)
        folder.lock()
        folder.unlock()

    begin_and_end()
    monkeypatch.setattr(os, "register_at_fork", lambda **_: pytest.fail("another callback that stays"))
    begin_and_end()


def test_a_run_goes_on_whose_options_had_another_name_for_the_same(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    recipe = write_recipe(TrainConfig())
    assert "labels: auto" in recipe
    folder.write_text(folder.recipe, recipe.replace("labels: auto", "labels: coco"))

    folder.refuse_other(TrainConfig())


@pytest.mark.parametrize(("now", "before"), [("labels: auto", "labels: index"), ("crop: resized", "crop: plain")])
def test_a_run_with_other_options_is_refused(now: str, before: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    recipe = write_recipe(TrainConfig())
    assert now in recipe
    folder.write_text(folder.recipe, recipe.replace(now, before))

    name, value = before.split(": ")
    with pytest.raises(ValueError, match=f"begun with [a-z]*.{name}='{value}', not "):
        folder.refuse_other(TrainConfig())
