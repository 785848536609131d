"""Large images to zoom into: tiles of every level, and the page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from prediction.cases import noise_image, random_classes, random_objects
from vision_longformer.images import ArrayReader
from vision_longformer.prediction.formats import write_result, zoom
from vision_longformer.prediction.results import RegionsResult

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SIZE, TILE = (150, 210), 64  # three levels; the last tiles of each are smaller
GRAY = 120


def made(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, name: str = "a.tif") -> RegionsResult:
    monkeypatch.setattr(zoom, "TILE", TILE)
    make: Any = random_objects if kind == "objects" else random_classes
    pixels = np.full((*SIZE, 3), GRAY, np.uint8)
    result: RegionsResult = make(0, size=SIZE)
    result = replace(result, reader=lambda: ArrayReader(pixels), image=replace(result.image, name=name))
    write_result(folder, result, format="zoom")
    return result


def level_of(folder: Path, number: int) -> NDArray[np.uint8]:
    """Return the picture that a level's tiles make."""
    height, width = (-(-side // 2 ** (2 - number)) for side in SIZE)
    whole, filled = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), bool)
    for path in (folder / str(number)).iterdir():
        column, row = map(int, path.stem.split("_"))
        tile = np.asarray(Image.open(path))
        part = whole[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
        assert tile.shape == part.shape
        part[:] = tile
        filled[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = True
    assert filled.all()
    return whole


@pytest.mark.parametrize("kind", ["objects", "classes"])
def test_levels_show_the_image_and_what_was_found(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = made(kind, tmp_path / "x.zoom", monkeypatch)
    assert sorted(path.name for path in (tmp_path / "x.zoom").iterdir()) == [
        "0", "1", "2", "index.html", "openseadragon.js",
    ]  # fmt: skip
    for number in range(3):
        touched = (np.abs(level_of(tmp_path / "x.zoom", number).astype(int) - GRAY) > 40).any(axis=2)
        assert 0.02 < touched.mean() < 0.95
        rows, columns = (((np.arange(side) + 0.5) * 2 ** (2 - number)).astype(int) for side in touched.shape)
        labels = result.label_rows(0, SIZE[0])
        found = labels[rows.clip(max=SIZE[0] - 1)[:, None], columns.clip(max=SIZE[1] - 1)] > 0
        if kind == "objects" and number == 2:  # nothing is drawn far from objects
            near = np.asarray(Image.fromarray(found).convert("L").resize(found.shape[::-1]), bool)
            grown = np.maximum.reduce(
                [np.roll(near, (y, x), (0, 1)) for y in range(-9, 10, 3) for x in range(-9, 10, 3)]
            )
            assert touched[~grown].mean() < 0.01  # JPEG blurs colours


def test_the_image_itself_is_there_down_to_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoom, "TILE", TILE)
    pixels = noise_image(*SIZE)[..., :1].repeat(3, axis=2)
    result = replace(random_objects(0, size=SIZE, count=0), reader=lambda: ArrayReader(pixels))
    write_result(tmp_path / "x.zoom", result, format="zoom")
    whole = level_of(tmp_path / "x.zoom", 2).astype(int)
    assert np.abs(whole - pixels).mean() < 40  # JPEG, of noise
    means = pixels.reshape(75, 2, 105, 2, 3).mean(axis=(1, 3))
    assert np.abs(level_of(tmp_path / "x.zoom", 1) - means).mean() < 25


def test_a_name_cannot_end_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made("objects", tmp_path / "x.zoom", monkeypatch, name="</script><b>.tif")
    page = (tmp_path / "x.zoom/index.html").read_text()
    assert page.count("</script>") == 2
    about = json.loads(re.search(r"const about = (.*);\n", page)[1])  # type: ignore[index]
    assert about["name"] == "</script><b>.tif"
    assert (about["width"], about["height"], about["last"]) == (210, 150, 2)
    assert sum(int(entry["amount"]) for entry in about["legend"]) == len(random_objects(0, size=SIZE))


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine: apt-get install chromium")
@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_the_page_needs_no_server(width: int, theme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    made("objects", tmp_path / "x.zoom", monkeypatch)
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
        page.set_default_timeout(60_000)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        with page.expect_response(lambda response: "/2/" in response.url):
            page.goto((tmp_path / "x.zoom/index.html").as_uri())
            page.locator("body[data-ready=true]").wait_for()
            page.get_by_role("button", name="Zoom in").click()
        assert page.get_by_role("heading").inner_text() == "a.tif"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.get_by_role("list", name="Classes").is_visible()
        page.get_by_role("button", name="All").click()
        browser.close()
    assert problems == []
