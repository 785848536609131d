from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vil import main
from vision_longformer import VisionLongformer
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.extract import encode_files
from vision_longformer.features.results import Result
from vision_longformer.features.shards import Shard
from vision_longformer.features.status import FOLDER, RunRecord, RunStatus, read_status
from vision_longformer.features.writer import Writer
from vision_longformer.images.find import Source, find_images
from vision_longformer.variants import CONFIGS


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(VisionLongformer(CONFIGS["vision_longformer_nano"]), stages=[4])


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    (tmp_path / "in").mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "4.png").write_text("no image")
    return find_images([str(tmp_path / "in")])


def run(
    sources: list[Source],
    output: Path,
    encoder: Encoder,
    *,
    kind: Any = "safetensors",
    share: list[Source] | None = None,
) -> list[Result]:
    settings = Writer(output, encoder, kind=kind).settings
    record = RunRecord(output, sources, settings=settings, kind=kind)
    chosen = sources if share is None else share
    return list(record.follow(encode_files(chosen, output, encoder, model_name="nano", kind=kind)))


@pytest.mark.parametrize("kind", ["safetensors", "zarr", "auto", "parquet"])
def test_what_is_done_failed_and_left_is_seen(
    sources: list[Source], tmp_path: Path, encoder: Encoder, kind: Any
) -> None:
    pytest.importorskip({"zarr": "zarr", "parquet": "pyarrow"}.get(kind, "torch"))
    output = tmp_path / "out"
    run(sources, output, encoder, kind=kind, share=sources[:3])
    assert read_status(output) == RunStatus(6, 3, {})
    run(sources, output, encoder, kind=kind)
    assert read_status(output) == RunStatus(6, 5, {"4.png": "it is not an image that can be read"})
    Image.new("RGB", (40, 30)).save(sources[4].path)
    run(sources, output, encoder, kind=kind)
    assert read_status(output) == RunStatus(6, 6, {})


def test_shares_make_one_run(sources: list[Source], tmp_path: Path, encoder: Encoder) -> None:
    """One of them is never begun."""
    output = tmp_path / "out"
    for number in (1, 3):
        run(sources, output, encoder, share=Shard(number, 3).of(sources))
    lost = Shard(2, 3).of(sources)
    assert 0 < len(lost) < 6
    status = read_status(output)
    assert (status.images, status.left) == (6, len(lost))
    run(sources, output, encoder, share=lost)
    assert read_status(output) == RunStatus(6, 5, {"4.png": "it is not an image that can be read"})


def test_an_image_that_can_no_longer_be_read_has_failed(
    sources: list[Source], tmp_path: Path, encoder: Encoder
) -> None:
    output = tmp_path / "out"
    run(sources, output, encoder)
    sources[0].path.write_text("spoilt")
    run(sources, output, encoder)
    assert list(read_status(output).failed) == ["4.png", "0.png"] or list(read_status(output).failed) == [
        "0.png",
        "4.png",
    ]


def test_features_of_another_model_are_not_done(sources: list[Source], tmp_path: Path, encoder: Encoder) -> None:
    output = tmp_path / "out"
    run(sources, output, encoder)
    with torch.no_grad():
        encoder.model.norm.bias[0] += 1  # type: ignore[index, operator]
    run(sources, output, encoder, share=sources[:1])
    assert read_status(output) == RunStatus(6, 1, {})


def test_a_line_that_was_cut_short_is_left_out(sources: list[Source], tmp_path: Path, encoder: Encoder) -> None:
    output = tmp_path / "out"
    run(sources, output, encoder)
    (output / FOLDER / "failed-killed.jsonl").write_text('{"name": "0.png", "rea')
    assert list(read_status(output).failed) == ["4.png"]


def test_a_folder_of_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run of `vil encode` is known of here"):
        read_status(tmp_path)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "run.json").write_text("{")
    with pytest.raises(ValueError, match="it is damaged"):
        read_status(tmp_path)


def test_the_command_counts_and_names_what_failed(
    sources: list[Source], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, folder = str(tmp_path / "out"), str(sources[0].path.parent)
    assert main(["status", output]) == 2
    assert "no run of `vil encode`" in capsys.readouterr().err
    for shard in ("1/2", "2/2"):
        main(["encode", folder, "--output", output, "--model=vision_longformer_nano", "--shard", shard, "--batch=4"])
    assert not (tmp_path / "out" / "index.html").exists()
    capsys.readouterr()
    assert main(["status", output]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        "failed: 4.png: it is not an image that can be read",
        "6 images: 5 done, 1 failed, 0 left.",
    ]
    assert main(["status", output, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "images": 6,
        "done": 5,
        "failed": [{"image": "4.png", "reason": "it is not an image that can be read"}],
        "left": 0,
    }
