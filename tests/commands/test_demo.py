"""`vil demo`, up to the page it opens."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

import vil
from vision_longformer.commands import demo
from vision_longformer.explore import encoding
from vision_longformer.explore.strokes import Project
from vision_longformer.prediction.results import ObjectsResult
from vision_longformer.pretrained import Shipped


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return what the page says of itself when it is served, which here ends at once; nothing is encoded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(encoding, "encode_behind", lambda *arguments, **named: None)
    found: list[dict[str, Any]] = []

    def run(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        sockets[0].close()
        address = capsys.readouterr().out.split("The page is at ")[-1].split()[0]
        app: Any = server.config.app
        found.append(TestClient(app, base_url=address).get("api/state").json())

    monkeypatch.setattr(uvicorn.Server, "run", run)
    return found


def test_the_mosaic_is_part_of_the_package_with_its_source_and_licence() -> None:
    path = demo.demo_image()

    with Image.open(path) as image:
        assert image.size == (1536, 1536)
    assert path.stat().st_size < 4e6
    assert "CC0" in (path.parent / "SOURCE.md").read_text(encoding="utf-8")


def test_without_the_ready_model_it_says_so_and_the_page_opens_for_strokes(
    states: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "ready_models", dict)

    assert demo.count(Path("nuclei.jpg"), Path(), "cpu") == (
        "The ready model nuclei, which counts them, is not in this package: paint strokes on the page instead."
    )
    assert vil.main(["demo", "--no-browser"]) == 0
    assert [image["name"] for image in states[0]["images"]] == ["nuclei.jpg"]
    assert [about["name"] for about in states[0]["classes"]] == ["background", "nucleus"]


def test_the_ready_model_counts_once_the_package_carries_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Three(ObjectsResult):
        def __init__(self) -> None:
            pass

        def __len__(self) -> int:
            return 3

        def save(self, path: str | Path, *, format: str | None = None) -> Path:
            assert format == "picture"
            return Path(path)

    def load(name: str, *, device: str) -> Any:
        assert (name, device) == ("nuclei", "cpu")
        return lambda image: Three()

    monkeypatch.setattr(demo, "ready_models", lambda: {"nuclei": Shipped("nuclei", "", "detection", "")})
    monkeypatch.setattr(demo, "load_predictor", load)

    said = demo.count(demo.demo_image(), tmp_path, "cpu")

    assert said == f"The ready model nuclei counts 3; they are drawn in {tmp_path / 'counted.jpg'}."


def test_strokes_of_an_earlier_look_are_kept(states: list[dict[str, Any]]) -> None:
    Path("mine").mkdir()
    Project(("sky", "cloud")).save(Path("mine/strokes.json"))

    assert vil.main(["demo", "--output", "mine", "--no-browser"]) == 0

    assert [about["name"] for about in states[0]["classes"]] == ["sky", "cloud"]
