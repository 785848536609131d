"""The command `vil plan`, with a stated speed in place of a measured one, but for one test."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from commands.test_main import NANO, one_line
from vil import main
from vision_longformer.commands import plan
from vision_longformer.memory.speed import Speed

HEIGHT, WIDTH = 45, 77
WAYS = ["whole", "streamed", "spilled"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return save(tmp_path / "x.png", HEIGHT, WIDTH)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the folders whose disk was timed."""
    folders: list[Path] = []

    def measured(_model: object, folder: Path) -> Speed:
        folders.append(folder)
        return Speed(multiply_adds=1e9, file_bytes=1e8)

    monkeypatch.setattr(plan, "measure_speed", measured)
    return folders


def save(path: Path, height: int, width: int) -> Path:
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)
    return path


def run(*arguments: object) -> int:
    return main(["plan", NANO, "--device=cpu", *(str(argument) for argument in arguments)])


def planned(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> list[dict[str, Any]]:
    """Return what is printed as JSON."""
    assert run(*arguments, "--json") == code
    shown = capsys.readouterr()
    assert shown.err == ""
    found: list[dict[str, Any]] = json.loads(shown.out)
    return found


def without_numbers(text: str) -> str:
    """Leave out what counts the memory of this process, which grows from one run to the next."""
    return re.sub(r"[\d.]+", "", text)


def test_the_ways_of_an_image_are_a_table(
    photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo.parent)
    assert run(photo, "--memory", "100GB") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    sentence, *table = (line for line in shown.out.splitlines() if line.strip())
    assert sentence == f"{photo}: 77×45 pixels within 100.0 GB: whole, the fastest way that fits."
    assert table[0].split() == ["way", "memory", "disk", "time"]
    assert [line.split()[0] for line in table[2:]] == WAYS
    assert [line.split("  ")[-1].strip() for line in (row.rstrip() for row in table[2:])] == [
        "chosen",
        "fits, but is slower",
        "fits, but is slower",
    ]
    assert all(" GB " in row and " s " in row for row in table[2:])
    assert list(photo.parent.iterdir()) == [photo]


@pytest.mark.usefixtures("timed")
def test_each_of_several_images_is_planned(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(photo.parent / "y.tif", 101, 83)
    found = planned(capsys, photo.parent, "--memory", "1TB")
    assert [(Path(one["image"]).name, one["size"]) for one in found] == [("x.png", [45, 77]), ("y.tif", [101, 83])]
    for one in found:
        assert one["chosen"] == "whole"
        assert one["limit"] == 10**12
        assert [way["way"] for way in one["ways"]] == WAYS
        assert all(way["memory"] > 0 and way["seconds"] > 0 and way["obstacle"] == "" for way in one["ways"])
    assert found[1]["ways"][0]["seconds"] > found[0]["ways"][0]["seconds"]
    assert run(photo, photo.parent / "y.tif", "--memory", "1TB") == 0
    assert capsys.readouterr().out.count("whole, the fastest way that fits.") == 2


@pytest.mark.usefixtures("timed")
def test_an_image_that_is_to_be_shrunk_is_planned_small_and_read_large(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = save(tmp_path / "large.png", 3000, 4000)
    (as_it_is,), (shrunk,) = planned(capsys, large), planned(capsys, large, "--max-side", 400)
    (small,) = planned(capsys, save(tmp_path / "small.png", 300, 400))

    assert (as_it_is["size"], shrunk["size"], small["size"]) == ([3000, 4000], [300, 400], [300, 400])
    assert shrunk["chosen"] == "whole"
    as_stored, when_shrunk, when_small = (found["ways"][0]["memory"] for found in (as_it_is, shrunk, small))
    assert when_small + 3000 * 4000 * 3 * 4 < when_shrunk < as_stored  # float32 of three channels


@pytest.mark.usefixtures("timed")
def test_a_size_is_enough_and_less_memory_makes_for_another_way(capsys: pytest.CaptureFixture[str]) -> None:
    size = ("--size", "20000x30000", "--stages", 4)
    (roomy,) = planned(capsys, *size, "--memory", "1TB")
    assert (roomy["size"], roomy["chosen"]) == ([20_000, 30_000], "whole")
    needed = {way["way"]: way["memory"] for way in roomy["ways"]}
    assert needed["whole"] > needed["streamed"] > needed["spilled"]
    for way in ("streamed", "spilled"):
        (tight,) = planned(capsys, *size, "--memory", f"{needed[way] + 5 * 10**7}B")
        assert tight["chosen"] == way
        assert "of memory are more than" in tight["ways"][0]["obstacle"]
    (more,) = planned(capsys, "--size", "20000×30000", "--stages", 1, 4, "--memory", "1TB")
    assert more["ways"][1]["memory"] > needed["streamed"]


@pytest.mark.usefixtures("timed")
def test_what_fits_nowhere_is_refused_with_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    question = ("--size", "20000x30000", "--memory", "10MB")
    assert run(*question) == 1
    shown = capsys.readouterr()
    assert shown.err == ""
    sentence = shown.out.splitlines()[0]
    assert "an image of 30000×20000 pixels does not fit (whole: " in sentence
    assert "of memory are more than 10.0 MB; streamed: " in sentence
    assert "allow " in sentence
    assert "chosen" not in shown.out
    (found,) = planned(capsys, *question, code=1)
    assert without_numbers(found["refusal"]) in without_numbers(sentence)
    assert "chosen" not in found


@pytest.mark.slow
def test_a_training_step_is_planned(capsys: pytest.CaptureFixture[str]) -> None:
    question = ("--training", "--size", "64x96")
    (found,) = planned(capsys, *question, "--memory", "20GB")
    assert found["size"] == [64, 96]
    assert found["chosen"]["batch"] == found["forecasts"][0]["batch"] > 1
    assert run(*question, "--memory", "20GB") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"a batch of {found['chosen']['batch']} images in float32 with AdamW; activation checkpointing is" in shown
    (refused,) = planned(capsys, *question, "--memory", "10MB", code=1)
    assert "a training step with one image of 96×64 pixels does not fit into 10.0 MB: allow" in refused["refusal"]
    assert run(*question, "--memory", "10MB") == 1
    assert without_numbers(refused["refusal"]) in without_numbers(capsys.readouterr().out)


@pytest.mark.usefixtures("timed")
def test_images_that_cannot_be_read_leave_the_others_their_plan(
    photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo.parent)
    Path("text.png").write_text("not an image")
    Path("cut.tif").write_bytes(b"II*\0\x08\0\0\0")
    save(Path("large.png"), HEIGHT, WIDTH + 1)
    names = ["text.png", "x.png", "cut.tif", "large.png"]
    limit = f"--max-pixels={HEIGHT * WIDTH}"
    found = planned(capsys, *names, limit, code=1)
    refusals = {Path(about["image"]).name: about["refusal"] for about in found if "refusal" in about}
    assert refusals.keys() == {"text.png", "cut.tif", "large.png"}
    for name, sentence in {
        "text.png": "it is not an image that can be read",
        "cut.tif": "it is no TIFF, or a damaged one",
        "large.png": f"more than the limit of {HEIGHT * WIDTH:,} (max_pixels)",
    }.items():
        assert refusals[name].startswith(str(photo.parent / name))
        assert sentence in refusals[name]
    assert [about["chosen"] for about in found if "chosen" in about] == ["whole"]
    assert run(*names, limit) == 1
    shown = capsys.readouterr().out
    assert all(refusal in shown for refusal in refusals.values())


def test_a_work_folder_need_not_be_there_yet(
    photo: Path, timed: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo.parent)
    for folder in (photo.parent / "new" / "below", "new"):
        planned(capsys, photo, "--work-folder", folder)
    assert timed == [photo.parent] * 2
    assert list(photo.parent.iterdir()) == [photo]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give images, or the --size of one, such as 32768x32768"),
        (["x.png", "--size", "10x10"], "give images, or the --size of one"),
        (["--size", "10"], "--size 10: write height and width in pixels"),
        (["--size", "0x10"], "--size 0x10: write height and width in pixels"),
        (["none.png"], "none.png: there is no such file or folder"),
        (["x.png", "--max-pixels", "many"], "--max-pixels many: must be a whole number"),
        (["x.png", "--model", "vision_longformer_tinny"], "did you mean 'vision_longformer_tiny'?"),
        (["x.png", "--checkpoint", "none.safetensors"], "none.safetensors: no such file"),
        (["x.png", "--memory", "lots"], "'lots' is no amount of memory: write a number and a unit"),
        (["x.png", "--memory=-3GB"], "'-3GB' is no amount of memory"),
        (["x.png", "--device", "abacus"], "device 'abacus' is not available here"),
        (["x.png", "--stages", "5"], "there is no stage 5"),
        (["--size", f"5x{'9' * 20}"], "height and width must be at most 10,000,000 pixels"),
        (["x.png", "--work-folder", "x.png/below"], "--work-folder x.png/below: cannot be written (not a directory)"),
    ],
)
def test_bad_questions_are_one_sentence(
    arguments: list[str],
    sentence: str,
    photo: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(photo.parent)
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert sentence in one_line(shown.err)
    assert shown.out == ""
