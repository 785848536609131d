"""The page in a real browser, as a person uses it."""

from __future__ import annotations

import asyncio
import io
import os
import random
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from vision_longformer.explore.actions import Actions
from vision_longformer.explore.server import build_app
from vision_longformer.explore.session import Session
from vision_longformer.explore.strokes import Project

from . import exploring

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE, DESKTOP = {"width": 390, "height": 800}, {"width": 1280, "height": 800}
PATIENCE = 60_000  # milliseconds, on a busy machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


class Late:
    """Answers of an application that come late, by different times."""

    def __init__(self, app: Any) -> None:
        self._app, self._random = app, random.Random(0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start" and "/api/" in scope["path"]:
                await asyncio.sleep(self._random.uniform(0, 0.8))
            await send(message)

        await self._app(scope, receive, sending)


class Serving:
    """A session's page, served by a thread."""

    def __init__(self, session: Session, *, late: bool = False) -> None:
        self.session = session
        self._socket = socket.create_server(("127.0.0.1", 0))
        app: Any = build_app(session, Actions(session, exploring.model), token="token")
        if late:
            app = Late(app)
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}/token/"

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    image = exploring.opened(tmp_path)
    found = Serving(exploring.session(tmp_path, image))
    yield found
    found.close()
    image.close()


def _open(browser: Any, address: str, *, viewport: dict[str, int], theme: str = "dark", **options: Any) -> Any:
    page = browser.new_page(viewport=viewport, color_scheme=theme, **options)
    page.set_default_timeout(PATIENCE)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(address)
    page.locator("body[data-ready=true]").wait_for()
    page.click("#got")
    return page


def _place(page: Any, x: float, y: float) -> tuple[float, float]:
    """Return where a pixel of the image is on the page, which shows the whole image."""
    box = page.locator("#view").bounding_box()
    height, width = exploring.SIZE
    scale = min(box["width"] / width, box["height"] / height)
    left, top = box["x"] + (box["width"] - width * scale) / 2, box["y"] + (box["height"] - height * scale) / 2
    return left + x * scale, top + y * scale


def _shown(page: Any, x: float, y: float) -> np.ndarray:
    """Return the colour that the page has at a pixel of the image."""
    place = _place(page, x, y)
    clip = {"x": place[0], "y": place[1], "width": 1, "height": 1}
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB"), int)
    return np.asarray(pixels[0, 0])


def _until(condition: Any) -> None:
    for _ in range(PATIENCE // 200):
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError("it did not come true in time")


def _paint_both_classes(page: Any) -> None:
    """Paint each of two classes twice, in its half of the image."""
    for key, places in (("1", ((30, 40), (60, 110))), ("2", ((150, 40), (180, 110)))):
        page.keyboard.press(key)
        for x, y in places:
            start = _place(page, x, y)
            page.mouse.move(*start)
            page.mouse.down()
            page.mouse.move(start[0] + 20, start[1], steps=3)
            page.mouse.up()


def test_a_person_finds_segments_exports_and_comes_back(browser: Any, serving: Serving, tmp_path: Path) -> None:
    page = _open(browser, serving.address, viewport=DESKTOP)

    # Similar: a click, then regions with a count
    page.mouse.click(*_place(page, 40, 60))
    page.locator("#forget:enabled").wait_for()
    page.locator("#threshold").fill("0.2")
    page.check("#as-regions")
    page.locator("#count", has_text="region").wait_for()

    # Segment: two classes, each painted twice
    page.click("#tab-segment")
    plain = _shown(page, 130, 75)
    _paint_both_classes(page)
    page.locator("#measure:enabled").wait_for()
    _until(lambda: np.abs(_shown(page, 130, 75) - plain).max() > 20)  # the overlay has come
    assert [len(serving.session.strokes(0)), serving.session.fitted is not None] == [4, True]
    page.click("#measure")
    page.locator("#quality", has_text="held out in turn").wait_for()
    page.keyboard.press("z")
    _until(lambda: len(serving.session.strokes(0)) == 3)
    page.keyboard.press("Shift+Z")
    _until(lambda: len(serving.session.strokes(0)) == 4)

    # Take away: apply, export, download
    page.click("#tab-take")
    page.locator("#apply:enabled").click()
    page.locator("#shares", has_text="background").wait_for()
    page.locator("[data-format=labels]:enabled").click()
    with page.expect_download() as download:
        page.locator("#job a").click()
    exported = np.asarray(Image.open(download.value.path()))
    assert exported.shape == exploring.SIZE
    assert exported[75, 40] == 0
    assert exported[75, 190] == 1

    # What is shown has the colours of what was exported, wherever one looks; the background only when it is asked for
    page.locator("#opacity").fill("1")
    page.click("#tab-segment")
    page.locator("#classes .eye").first.click()
    page.click("#tab-take")
    colours = {0: (230, 159, 0), 1: (86, 180, 233)}
    for x, y in ((20, 20), (90, 130), (140, 20), (200, 140)):
        label = int(exported[y, x])
        _until(lambda x=x, y=y, label=label: np.abs(_shown(page, x, y) - colours[label]).max() < 4)
    assert page.problems == []
    page.close()

    # Coming back: the strokes are there, and so is what follows from them
    strokes = serving.session.project_file
    again = Session(serving.session.images, strokes, Project.load(strokes), tmp_path)
    reopened = Serving(again)
    page = _open(browser, reopened.address, viewport=DESKTOP)
    page.click("#tab-segment")
    page.locator("#measure:enabled").wait_for()
    assert page.locator("#classes .strokes").all_inner_texts() == ["2", "2"]
    page.close()
    reopened.close()


def test_answers_that_come_late_lose_nothing(browser: Any, tmp_path: Path) -> None:
    images = [exploring.opened(tmp_path, seed=seed) for seed in (0, 1)]
    serving = Serving(exploring.session(tmp_path, *images), late=True)
    page = _open(browser, serving.address, viewport=DESKTOP)
    page.click("#tab-segment")

    _paint_both_classes(page)
    page.keyboard.press("z")
    page.keyboard.press("z")
    page.keyboard.press("Shift+Z")
    page.select_option("#images", "1")  # what was painted belongs to the image that it was painted on

    _until(lambda: len(serving.session.strokes(0)) == 3 and not serving.session.strokes(1))
    assert [stroke.label for stroke in serving.session.strokes(0)] == [0, 0, 1]
    page.locator("#measure:enabled").wait_for()

    serving.session.refit()  # as encoding does, or another window: the page does not know, and finds out
    page.select_option("#images", "0")
    page.locator("#opacity").fill("1")
    _until(lambda: np.abs(_shown(page, 190, 140) - (86, 180, 233)).max() < 4)
    page.close()
    serving.close()
    for image in images:
        image.close()


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_everything_can_be_reached_at_any_width_and_in_both_themes(
    browser: Any, serving: Serving, theme: str, viewport: dict[str, int]
) -> None:
    page = _open(browser, serving.address, viewport=viewport, theme=theme)

    for tab in ("similar", "segment", "take"):
        page.click(f"#tab-{tab}")
        for control in page.locator(f"#{tab} button, #{tab} input, #{tab} select").all():
            control.scroll_into_view_if_needed()
            box = control.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= viewport["width"]
        if folder := os.environ.get("VIL_SCREENSHOTS"):
            page.screenshot(path=str(Path(folder) / f"{tab}-{theme}-{viewport['width']}.png"))
    assert page.evaluate("() => document.documentElement.scrollWidth") <= viewport["width"]
    assert page.evaluate("() => document.documentElement.dataset.theme") == theme
    assert page.problems == []
    page.close()


def test_a_finger_paints_and_the_keyboard_does_too(browser: Any, serving: Serving) -> None:
    page = _open(browser, serving.address, viewport=PHONE, has_touch=True)
    page.tap("#tab-segment")
    page.touchscreen.tap(*_place(page, 40, 60))
    _until(lambda: len(serving.session.strokes(0)) == 1)

    page.keyboard.press("2")
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("Enter")  # at the middle of the view

    _until(lambda: len(serving.session.strokes(0)) == 2)
    first, second = serving.session.strokes(0)
    assert first.label == 0
    assert first.points[0] == pytest.approx((40, 60), abs=2)
    assert second.label == 1
    assert second.points[0] == pytest.approx((exploring.SIZE[1] / 2, exploring.SIZE[0] / 2), abs=2)
    page.close()
