"""`vil probe`: labelled folders to a table, JSON and a page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vil import main
from vision_longformer.commands.probe import read

COLOURS = {"blue": (30, 60, 200), "red": (200, 60, 30)}


def _folder(where: Path, *, each: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (where / name).mkdir(parents=True)
        for number in range(each):
            pixels = np.clip(generator.normal(colour, 40, (20, 26, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(where / name / f"{number}.png")


@pytest.mark.slow
def test_what_colours_tell_apart_is_found_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _folder(tmp_path / "data" / "train", each=6, seed=0)
    _folder(tmp_path / "data" / "val", each=4, seed=1)
    page, values = tmp_path / "page", tmp_path / "values.json"

    files = ["--output", str(page), "--json", str(values)]
    code = main(["probe", str(tmp_path / "data"), "--models", "colours", "random", "--size", "24", *files])

    assert code == 0
    assert "colours" in capsys.readouterr().out
    colours, random = json.loads(values.read_text())
    assert colours["neighbours"]["accuracy"] == colours["linear"]["accuracy"] == 1
    assert colours["linear"]["low"] == pytest.approx(0.676, abs=1e-3)  # Wilson's interval of 8 of 8
    assert (random["features"], random["images"]) == (256, 8)
    assert "100.0% (68–100)" in (page / "index.html").read_text()


def test_class_folders_without_a_split_are_judged_in_folds(tmp_path: Path) -> None:
    _folder(tmp_path / "data", each=5, seed=0)

    code = main(
        [
            "probe",
            str(tmp_path / "data"),
            "--models",
            "colours",
            "--size",
            "16",
            "--json",
            str(tmp_path / "values.json"),
        ]
    )

    assert code == 0
    assert json.loads((tmp_path / "values.json").read_text())[0]["images"] == 10


def test_few_images_of_each_class_can_be_learnt_from(tmp_path: Path) -> None:
    for split, each in (("train", 9), ("val", 3)):
        _folder(tmp_path / split, each=each, seed=each)
    samples, [(known, asked)] = read(tmp_path, each=4)

    assert [samples.labels[n] for n in known] == [0] * 4 + [1] * 4
    assert [samples.paths[n].parent.parent.name for n in asked] == ["val"] * 6


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere"),
        (["data", "--models", "vision_longformer_base_deep"], "vision_longformer_base_deep"),
        (["data", "--models", "no_such_model"], "neither a file nor a folder"),
        (["data", "--size", "0"], "--size 0: must be at least 1"),
    ],
)
def test_what_cannot_be_probed_is_said_in_a_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _folder(tmp_path / "data", each=2, seed=0)
    monkeypatch.chdir(tmp_path)

    assert main(["probe", *arguments]) == 2

    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
