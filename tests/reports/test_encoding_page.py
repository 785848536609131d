from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vision_longformer import VisionLongformer
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.extract import encode_files
from vision_longformer.images.find import Source
from vision_longformer.images.thumbnails import encode_picture
from vision_longformer.reports import encoding_page
from vision_longformer.reports.encoding_page import Entry, Figure, Report
from vision_longformer.variants import CONFIGS

HEIGHT, WIDTH = 45, 77


class Page(HTMLParser):
    """What a page shows, and every address in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def titles(self) -> list[str]:
        return [str(image["alt"]) for image in self.images]


def photo(folder: Path, name: str, *, broken: bool = False) -> Source:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / name)
    if broken:
        (folder / name).write_text("not an image")
    return Source(folder / name, name)


def run(sources: list[Source], output: Path, **options: Any) -> Page:
    torch.manual_seed(0)  # the same weights in each run
    network = VisionLongformer(options.pop("config", CONFIGS["vision_longformer_nano"]))
    encoder = Encoder(network, stages=[len(network.stages)])
    for _ in encode_files(sources, output, encoder, model_name="nano", **options):
        pass
    return Page((output / "index.html").read_text())


def test_an_image_stands_beside_its_stages_and_its_attention(tmp_path: Path) -> None:
    page = run([photo(tmp_path, "x.png")], tmp_path / "out")
    parts = ("Image", "Stage 1", "Stage 2", "Stage 3", "Stage 4", "Global token, stage 3")
    assert page.titles == [f"{part} of x.png" for part in parts]
    for size in ("20 × 12 tokens", "10 × 6 tokens", "5 × 3 tokens", "3 × 2 tokens"):
        assert size in page.text
    assert "77 × 45" in page.text
    assert re.search(r"\d\.\d\d GB", page.text)


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    page = run([photo(tmp_path, "x.png")], tmp_path / "out", remark="Beware.")
    text = (tmp_path / "out" / "index.html").read_text()
    assert all(address.startswith("data:image/") for address in page.addresses)
    for loading in ("http:", "https:", "url(", "@import", "<script", "<link"):
        assert loading not in text
    assert "Beware." in page.text


def test_models_without_global_tokens_have_no_attention_picture(tmp_path: Path) -> None:
    nano = CONFIGS["vision_longformer_nano"]
    stages = tuple(dataclasses.replace(stage, num_global_tokens=0) for stage in nano.stages)
    config = dataclasses.replace(nano, stages=stages)
    page = run([photo(tmp_path, "x.png")], tmp_path / "out", config=config)
    assert page.titles[-1] == "Stage 4 of x.png"


def test_failed_images_are_listed_with_the_reason(tmp_path: Path) -> None:
    page = run([photo(tmp_path, "a.png", broken=True), photo(tmp_path, "b.png")], tmp_path / "out")
    assert "1 image encoded, 1 failed." in page.text
    assert "it is not an image that can be read" in page.text
    assert {title.split()[-1] for title in page.titles} == {"b.png"}


def test_images_encoded_by_an_earlier_run_keep_their_pictures(tmp_path: Path) -> None:
    first = photo(tmp_path, "a.png")
    before = run([first], tmp_path / "out")
    page = run([first, photo(tmp_path, "b.png")], tmp_path / "out")
    assert page.titles[: len(before.titles)] == before.titles
    assert "1 image encoded, 1 encoded earlier." in page.text


def test_pictures_that_no_longer_show_the_features_are_dropped(tmp_path: Path) -> None:
    source = photo(tmp_path, "x.png")
    run([source], tmp_path / "out")
    network = VisionLongformer(CONFIGS["vision_longformer_nano"])
    list(encode_files([source], tmp_path / "out", Encoder(network), model_name="another", report=False))
    page = run([source], tmp_path / "out")
    assert page.titles
    list(encode_files([source], tmp_path / "out", Encoder(network), model_name="another", report=False))
    list(encode_files([source], tmp_path / "out", Encoder(network), model_name="another", report=True))
    page = Page((tmp_path / "out" / "index.html").read_text())
    assert page.titles == []
    assert "encoded earlier" in page.text


def test_damaged_waiting_pictures_are_left_out(tmp_path: Path) -> None:
    source = photo(tmp_path, "x.png")
    run([source], tmp_path / "out")
    waiting = tmp_path / "out" / ".report" / "x.png.json"
    waiting.write_text(json.dumps({"name": "x.png"}))
    assert run([source], tmp_path / "out").titles == []


def test_names_are_shown_as_text(tmp_path: Path) -> None:
    page = Report(tmp_path, title="<b>&", remark="<script>")
    page.add(Entry("<img src='http://x'>.png", message="<i>"))
    shown = Page(page.write().read_text())
    assert shown.images == []
    assert "<img src='http://x'>.png" in shown.text


def test_many_images_have_small_pictures_and_very_many_are_only_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding_page, "FULL_IMAGES", 2)
    monkeypatch.setattr(encoding_page, "MAX_PICTURED", 3)
    picture = encode_picture(torch.randint(0, 256, (600, 900, 3), dtype=torch.uint8), max_width=900)
    for count, width, pictured in ((2, 900, 2), (3, encoding_page.SMALL_WIDTH, 3), (5, encoding_page.SMALL_WIDTH, 3)):
        page = Report(tmp_path, title="nano")
        for number in range(count):
            figure = Figure("Image", "", picture)
            page.add(Entry(f"{number}.png", "", (600, 900), (600, 900), 1.0, 10**9, (figure,)), keep=True)
        shown = Page(page.write().read_text())
        assert [image["width"] for image in shown.images] == [str(width)] * pictured
        assert ("first 3 images" in shown.text) == (count > 3)
        assert f"{count - 1}.png" in shown.text
