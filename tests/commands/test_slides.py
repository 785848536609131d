"""A list of slides, of which each is read at its own scale, for `vil encode`, `vil plan` and `vil predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from images.slide_cases import UM, slide_pixels, write_slide
from vil import main
from vision_longformer import VisionLongformer, create_model
from vision_longformer.commands import plan
from vision_longformer.features.descriptions import read_metadata
from vision_longformer.features.load import load_features
from vision_longformer.memory.speed import Speed
from vision_longformer.weights import save

NANO = "--model=vision_longformer_nano"


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Return a list of three slides: at half of the resolution without glass, at a quarter, and as the others are."""
    for name in ("a", "b", "c"):
        write_slide(tmp_path / f"{name}.ome.tif", slide_pixels()[0])
    rows = f"a.ome.tif,{2 * UM},yes,\nb.ome.tif,,,2\nc.ome.tif,,,\n"
    (tmp_path / "slides.csv").write_text(f"path,mpp,tissue,level\n{rows}")
    return tmp_path / "slides.csv"


def test_each_is_encoded_as_its_row_says(slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    command = ["encode", str(slides), "--output", str(output), NANO, "--device=cpu", "--level=1", "--no-report"]
    assert main(command) == 0
    about: list[Any] = [read_metadata(output / f"{name}.ome.tif.safetensors") for name in ("a", "b", "c")]
    assert [one["encoded_size"] for one in about] == [[48, 96], [24, 48], [48, 96]]
    assert [one["reading"]["level"] for one in about] == [0, 2, 1]
    assert (about[0]["reading"]["mpp"], about[0]["reading"]["tissue"]) == (2 * UM, True)
    whole, tissue = (load_features(output / f"{name}.ome.tif.safetensors").embedding for name in ("c", "a"))
    assert (whole - tissue).abs().max() > 1e-3
    capsys.readouterr()
    assert main(["status", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 3
    assert main(command) == 0
    assert "3 done before" in capsys.readouterr().out
    slides.write_text(slides.read_text().replace("b.ome.tif,,,2", "b.ome.tif,,,1"))
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "1 encoded" in shown
    assert "2 done before" in shown


def test_each_is_planned_as_its_row_says(
    slides: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "measure_speed", lambda model, folder: Speed(multiply_adds=1e9, file_bytes=1e8))
    assert main(["plan", str(slides), NANO, "--device=cpu", "--json"]) == 0
    assert [one["size"] for one in json.loads(capsys.readouterr().out)] == [[48, 96], [24, 48], [96, 192]]


def test_each_is_classified_as_its_row_says(slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = create_model("vision_longformer_nano", num_classes=3)
    assert isinstance(model, VisionLongformer)
    save(model, tmp_path / "x.safetensors")
    base = ["predict", "--device=cpu", "--size=64", "--format=json", str(tmp_path / "x.safetensors")]
    assert main([*base, str(slides)]) == 0
    listed = json.loads(capsys.readouterr().out)
    options = [f"--mpp={2 * UM}", "--tissue"]
    assert main([*base, str(slides.parent / "a.ome.tif"), *options]) == 0
    (alone,) = json.loads(capsys.readouterr().out)
    for one, other in zip(listed[0]["classes"], alone["classes"], strict=True):
        assert one["name"] == other["name"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)  # a batch rounds otherwise
    assert [Path(one["path"]).name for one in listed] == ["a.ome.tif", "b.ome.tif", "c.ome.tif"]
    differences = [
        abs(one["probability"] - other["probability"])
        for one, other in zip(listed[0]["classes"], listed[2]["classes"], strict=True)
    ]
    assert max(differences) > 1e-5


def test_what_is_wrong_with_a_list_is_a_sentence(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slides.write_text("path,mpp\na.ome.tif,0\n")
    for command in ("encode", "plan"):
        options = ["--output", str(tmp_path / "out")] if command == "encode" else []
        assert main([command, str(slides), NANO, *options]) == 2
        assert "slides.csv, line 2: mpp=0.0: must be above 0" in " ".join(capsys.readouterr().err.split())
