from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reports.pages import HOSTILE, Page
from vision_longformer import ModelConfig, VisionLongformer
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.extract import encode_files
from vision_longformer.features.figures import Figure
from vision_longformer.features.results import Result
from vision_longformer.images.find import Source
from vision_longformer.images.thumbnails import encode_picture
from vision_longformer.reports import encoding_page
from vision_longformer.reports.encoding_page import Report
from vision_longformer.utils.memory_trace import MemoryTrace, Sample, Span
from vision_longformer.variants import CONFIGS

HEIGHT, WIDTH = 45, 77
NANO = CONFIGS["vision_longformer_nano"]


def titles(page: Page) -> list[str]:
    return [image["alt"] for image in page.images]


def photo(folder: Path, name: str, *, broken: bool = False) -> Source:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / name)
    if broken:
        (folder / name).write_text("not an image")
    return Source(folder / name, name)


def encode(sources: list[Source], output: Path, network: VisionLongformer) -> Iterator[Result]:
    encoder = Encoder(network, stages=[len(network.stages)])
    return encode_files(sources, output, encoder, model_name="nano", pictures=True)


def run(sources: list[Source], output: Path, *, config: ModelConfig = NANO, remark: str = "") -> Page:
    torch.manual_seed(0)  # the same weights in each run
    network = VisionLongformer(config)
    report = Report(output, title="nano", remark=remark)
    assert not [result for result in report.follow(encode(sources, output, network)) if result.figures]
    return Page(output / "index.html")


def test_an_image_stands_beside_its_stages_and_its_attention(tmp_path: Path) -> None:
    page = run([photo(tmp_path, "x.png")], tmp_path / "out")
    parts = ("Image", "Stage 1", "Stage 2", "Stage 3", "Stage 4", "Like the middle, stage 4", "Global token, stage 3")
    assert titles(page) == [f"{part} of x.png" for part in parts]
    for size in ("20 × 12 tokens", "10 × 6 tokens", "5 × 3 tokens", "3 × 2 tokens"):
        assert size in page.text
    assert "77 × 45" in page.text
    assert re.search(r"\d\.\d\d GB", page.text)


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    page = run([photo(tmp_path, "x.png")], tmp_path / "out", remark="Beware.")
    page.assert_self_contained()
    assert "Beware." in page.text


def test_models_without_global_tokens_have_no_attention_picture(tmp_path: Path) -> None:
    stages = tuple(dataclasses.replace(stage, num_global_tokens=0) for stage in NANO.stages)
    config = dataclasses.replace(NANO, stages=stages)
    page = run([photo(tmp_path, "x.png")], tmp_path / "out", config=config)
    assert titles(page)[-1] == "Like the middle, stage 4 of x.png"


def test_failed_images_are_listed_with_the_reason(tmp_path: Path) -> None:
    page = run([photo(tmp_path, "a.png", broken=True), photo(tmp_path, "b.png")], tmp_path / "out")
    assert "1 image encoded, 1 failed." in page.text
    assert "it is not an image that can be read" in page.text
    assert {title.split()[-1] for title in titles(page)} == {"b.png"}


def test_images_encoded_by_an_earlier_run_keep_their_pictures(tmp_path: Path) -> None:
    first = photo(tmp_path, "a.png")
    before = run([first], tmp_path / "out")
    page = run([first, photo(tmp_path, "b.png")], tmp_path / "out")
    assert titles(page)[: len(titles(before))] == titles(before)
    assert "1 image encoded, 1 encoded earlier." in page.text


def test_pictures_that_no_longer_show_the_features_are_dropped(tmp_path: Path) -> None:
    source, output = photo(tmp_path, "x.png"), tmp_path / "out"
    assert titles(run([source], output))
    other = VisionLongformer(NANO)
    list(encode_files([source], output, Encoder(other, stages=[4]), model_name="other"))  # without a page
    list(Report(output, title="other").follow(encode([source], output, other)))
    page = Page(output / "index.html")
    assert titles(page) == []
    assert page.section("Time").rows() == [["x.png", *["–"] * 5, "encoded earlier"]]


def test_damaged_waiting_pictures_are_left_out(tmp_path: Path) -> None:
    source = photo(tmp_path, "x.png")
    run([source], tmp_path / "out")
    waiting = tmp_path / "out" / ".report" / "x.png.json"
    waiting.write_text(json.dumps({"name": "x.png"}))
    assert titles(run([source], tmp_path / "out")) == []


def test_names_are_shown_as_text(tmp_path: Path) -> None:
    page = Report(tmp_path, title="<b>&", remark=HOSTILE[0])
    for name in (*HOSTILE, "<img src='http://x'>.png", os.fsdecode(b"caf\xe9.png")):
        page.add(Result(Source(tmp_path / name, name), "failed", message="<i>"))
    shown = Page(page.write())
    shown.assert_self_contained()
    assert not shown.images
    assert not shown.all("i")
    assert [row[0] for row in shown.section("Time").rows()] == [*HOSTILE, "<img src='http://x'>.png", "caf?.png"]


def test_the_names_of_pictured_images_are_shown_as_text(tmp_path: Path) -> None:
    sources = [photo(tmp_path, name) for name in ("<b>.png", "a' onload='x.png")]
    page = run(sources, tmp_path / "out")
    page.assert_self_contained()
    assert not page.section("<b>.png").all("h2")[0].all("b")
    assert {title.split(" of ", 1)[1] for title in titles(page)} == {"<b>.png", "a' onload='x.png"}


def test_many_images_have_small_pictures_and_very_many_are_only_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding_page, "FULL_IMAGES", 2)
    monkeypatch.setattr(encoding_page, "MAX_PICTURED", 3)
    picture = encode_picture(torch.randint(0, 256, (600, 900, 3), dtype=torch.uint8), max_width=900)
    figures, size = (Figure("Image", "", picture),), (600, 900)
    for count, width, pictured in ((2, 900, 2), (3, encoding_page.SMALL_WIDTH, 3), (5, encoding_page.SMALL_WIDTH, 3)):
        page = Report(tmp_path, title="nano")
        for number in range(count):
            source = Source(tmp_path / f"{number}.png", f"{number}.png")
            page.add(Result(source, "encoded", "", size, size, 1.0, 10**9, figures=figures))
        shown = Page(page.write())
        assert [image["width"] for image in shown.images] == [str(width)] * pictured
        assert ("first 3 images" in shown.text) == (count > 3)
        assert f"{count - 1}.png" in shown.text


def test_each_image_has_the_forecast_of_its_plan_while_it_is_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces: list[MemoryTrace] = []
    monkeypatch.setattr(encoding_page, "memory_part", traces.append)
    run([photo(tmp_path, "a.png", broken=True), photo(tmp_path, "b.png")], tmp_path / "out")
    failed, done = traces[0].spans
    assert (failed.forecast, failed.whole, done.whole) == (None, None, None)
    assert done.forecast is not None
    assert failed.start <= failed.end <= done.start < done.end


def test_the_memory_of_the_run_is_drawn(tmp_path: Path) -> None:
    page = Report(tmp_path, title="nano")
    trace = MemoryTrace([Sample(float(second), 10**9) for second in range(5)], [Span(0.0, 4.0, 2 * 10**9, None)])
    shown = Page(page.write(trace)).section("Memory")
    assert [entry.text for entry in shown.all("span", "entry")] == ["held by the process", "forecast by the plan"]
    assert [len(shown.all("path", colour)) for colour in ("blue", "orange", "green")] == [3, 2, 0]  # with the legend
    assert "The process held 1.00 GB" in shown.text
