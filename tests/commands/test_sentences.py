"""What `vil` says where a command is not what it could be, and what its help says."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import vil
from training.cases import make_images, plain, write_bands
from vision_longformer.commands import encode, predict
from vision_longformer.commands.common import Parser
from vision_longformer.commands.options import COMMANDS
from vision_longformer.commands.train import configuration
from vision_longformer.training.recipes import write_recipe


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what runs a command in an empty folder with a photograph, and gives its exit code and its words."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 32), (9, 99, 199)).save("a.png")

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = vil.main(list(arguments))
        out, err = capsys.readouterr()
        return code, " ".join((out + err).split())

    return run


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("encode a.png", "vil: --output DIR is missing (see vil encode --help)"),
        ("encode --output o", "vil: IMAGES is missing (see vil encode --help)"),
        ("train", "vil: --data PATH and --output DIR are missing (see vil train --help)"),
        ("encode a.png --output o --model tiny", "did you mean 'vision_longformer_tiny'?"),
        ("encode a.png --output o --memory -4GB", "'-4GB' is no amount of memory: write a number and a unit"),
        ("encode a.png --output o --device gpu", "auto prefers a GPU, cpu and cuda are those of most machines"),
        ("train --data d --output /proc/o", "vil: --output /proc/o: cannot be written"),
        ("evaluate w --data d --json a.png/b", "vil: --json a.png: cannot be written (a.png is no folder)"),
        ("evaluate w --data d --json .", "vil: --json .: is a folder, not a file"),
        ("export vision_longformer_nano --output a.png/b", "vil: --output a.png: cannot be written"),
        ("encode a.png --output a.png", "vil: --output a.png: is a file; name a folder for the features"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(said: Any, arguments: str, sentence: str) -> None:
    code, words = said(*arguments.split())
    assert code == 2
    assert sentence in words


def test_where_nothing_could_be_encoded_no_features_are_promised(said: Any) -> None:
    Path("bad.png").write_text("no image")
    code, words = said("encode", "bad.png", "--output", "o", "--no-report")
    assert code == 1
    assert "0 encoded, 1 failed. There are no features." in words


def test_speeds_say_of_what(said: Any) -> None:
    _, words = said("encode", "a.png", "--output", "o", "--no-report")
    assert re.search(r"1 encoded \(0\.0 megapixels in \d+\.\d s, \d+\.\d\d megapixels/s\)\. Features are in o\.", words)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"content": "dense", "task": "detection"}, "holds a model for detection, which `vil predict`"),
        ({"content": "timm", "name": "resnet18"}, "holds a model of timm"),
    ],
)
def test_whole_weights_of_another_kind_are_not_called_damaged(said: Any, about: dict[str, Any], words: str) -> None:
    save_file({"a": torch.zeros(1)}, "w.safetensors", {"vision_longformer": json.dumps({"format_version": 1, **about})})
    code, told = said("encode", "a.png", "--output", "o", "--checkpoint", "w.safetensors")
    assert code == 2
    assert words in told
    assert "damaged" not in told


@pytest.mark.parametrize("bands", [4, 5])
def test_plan_refuses_what_encode_would_refuse(said: Any, bands: int) -> None:
    write_bands(Path("x.tif"), np.full((32, 40, bands), 99, np.uint16))
    code, words = said("plan", "x.tif")
    assert code == 1
    assert "choose some with --channels" in words
    failed, again = said("encode", "x.tif", "--output", "o", "--no-report")
    assert failed == 1
    assert f"it has {bands} channels" in again


@pytest.mark.parametrize(("command", "module"), [("encode", encode), ("predict", predict)])
def test_after_an_interruption_only_what_is_true_is_said(
    said: Any, monkeypatch: pytest.MonkeyPatch, command: str, module: Any
) -> None:
    def interrupted(_arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run", interrupted)
    code, words = said(command, "a.png", *(["--output", "o"] if command == "encode" else []))
    assert code == 130
    goes_on = "vil: interrupted; what was finished is kept, and running again goes on from there"
    assert words == (goes_on if command == "encode" else "vil: interrupted; running again begins anew")


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_says_each_default_once(command: str) -> None:
    text = COMMANDS[command]().format_help()
    assert "%%" not in text
    assert "null, default: null" not in text


def test_every_option_of_a_recipe_says_its_type_and_its_default() -> None:
    options = [action for action in COMMANDS["train"]()._actions if "." in action.dest]
    assert len(options) > 60
    for action in options:
        assert re.search(r"\((text|a |two |one of |true or false).*; default: .+\)$", action.help or ""), action.dest
        assert (action.help or "").count("default: ") == 1


def parsed(*arguments: str) -> Any:
    parser: Parser = COMMANDS["train"]()
    return configuration(parser.parse_args(["--data", "d", "--output", "o", *arguments]))


def test_null_is_a_value_of_its_own() -> None:
    assert parsed("--dense.sides", "null").dense.sides is None
    assert parsed().dense.sides == (800,)


@pytest.mark.slow
def test_names_that_are_no_text_go_through_training_and_prediction(said: Any, tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", train=2, val=1)
    for split in ("train", "val"):
        os.rename(data / split / "red", os.fsencode(data / split) + b"/caf\xe9")
        os.rename(data / split / "blue" / "0.png", os.fsencode(data / split / "blue") + b"/\xff.png")
    Path("recipe.yaml").write_text(write_recipe(plain(schedule={"epochs": 1, "warmup_epochs": 0})))
    code, words = said("train", "--recipe", "recipe.yaml", "--data", "data", "--output", "run")
    assert code == 0, words
    assert Path("run/report.html").is_file()
    code, words = said("evaluate", "run/best.safetensors", "--data", "data", "--workers", "0", "--json", "e.json")
    assert code == 0, words
    for form in ("table", "json", "csv"):
        code, words = said("predict", "run/best.safetensors", "data/val", "--format", form, "--output", f"p.{form}")
        assert code == 0, words
        assert b"\xff.png" in Path(f"p.{form}").read_bytes() or b"\\udcff.png" in Path(f"p.{form}").read_bytes()


def test_names_that_are_no_text_are_encoded_and_shown(said: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    os.rename("a.png", os.fsencode(tmp_path / "in") + b"/caf\xe9.png")
    code, words = said("encode", "in", "--output", "o")
    assert code == 0, words
    assert b"caf\xe9.png.safetensors" in os.listdir(b"o")
    assert "caf" in Path("o/index.html").read_text(encoding="utf-8")
