"""Images encoded whole, streamed or spilled: the same features, within a limit, and going on after a stop."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file

from reports.pages import Page
from vision_longformer import VisionLongformer
from vision_longformer.features import strategies, writer
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.extract import encode_files
from vision_longformer.features.failures import OutputError
from vision_longformer.features.formats import write_features
from vision_longformer.features.load import load_features
from vision_longformer.features.results import Result
from vision_longformer.features.resume import PLAN
from vision_longformer.features.strategies import Limits, work_folder_of
from vision_longformer.images.find import find_images
from vision_longformer.memory.plans import STRATEGIES, Strategy
from vision_longformer.reports.encoding_page import Report

HEIGHT, WIDTH = 301, 212


class StoppedError(Exception):
    pass


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4)).astype(np.uint8)
    pixels[40:70, :90, 3] = 0
    path = tmp_path / "x.png"
    Image.fromarray(pixels).save(path)
    return path


def encode(path: Path, output: Path, model: VisionLongformer, way: str, **options: Any) -> list[Result]:
    limits = Limits(way, memory=options.pop("memory", 10**12), work_folder=options.pop("work_folder", None))  # type: ignore[arg-type]
    encoder = Encoder(model, stages=(2, 4), max_side=options.pop("max_side", None))
    settings: dict[str, Any] = {"model_name": "nano", "dtype": "float32"} | options
    results = encode_files(find_images([str(path)]), output, encoder, limits=limits, **settings)
    return list(Report(output, title="nano").follow(results) if options.get("pictures") else results)


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    """An image whose rows are read from the file each time they are asked for."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="rgb")
    return tmp_path / "x.tif"


def features(output: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(output / "x.png.safetensors"))


@pytest.mark.parametrize("way", STRATEGIES)
def test_every_way_gives_the_features_of_the_whole_image(
    way: Strategy, photo: Path, model: VisionLongformer, tmp_path: Path
) -> None:
    expected = Encoder(model, stages=(2, 4)).encode(photo)
    (result,) = encode(photo, tmp_path / "out", model, way)
    assert result.status == "encoded"
    found = features(tmp_path / "out")
    for name, tensor in zip(("stage2", "stage4"), expected.maps, strict=True):
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["embedding"], expected.embedding, rtol=1e-4, atol=1e-5)
    assert torch.equal(load_features(tmp_path / "out" / "x.png.safetensors").valid.tensor(), expected.valid)
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["x.png.safetensors"]


def test_auto_goes_the_fastest_way_that_fits(photo: Path, model: VisionLongformer, tmp_path: Path) -> None:
    calls: list[float] = []

    def note(_source: object, share: float, pixels: int) -> None:
        assert pixels == HEIGHT * WIDTH
        calls.append(share)

    encode(photo, tmp_path / "a", model, "auto", on_band=note)
    assert calls == []
    encode(photo, tmp_path / "b", model, "streamed", on_band=note)
    assert calls == sorted(calls)
    assert calls[-1] == pytest.approx(1)


def test_what_does_not_fit_fails_with_the_numbers(photo: Path, model: VisionLongformer, tmp_path: Path) -> None:
    (result,) = encode(photo, tmp_path / "out", model, "auto", memory=10**6)
    assert result.status == "failed"
    assert "an image of 212×301 pixels does not fit (whole: " in result.message
    assert "of memory are more than 1.0 MB; streamed: " in result.message
    assert "allow " in result.message


def test_an_image_that_is_shrunk_cannot_be_streamed(photo: Path, model: VisionLongformer, tmp_path: Path) -> None:
    (result,) = encode(photo, tmp_path / "out", model, "streamed", max_side=100)
    assert result.message == "an image that is shrunk (--max-side) cannot be streamed"
    assert encode(photo, tmp_path / "out", model, "auto", max_side=100)[0].status == "encoded"


@pytest.mark.parametrize("stop_at", [0.1, 0.6, 0.97])
def test_a_stopped_run_goes_on_and_gives_the_same_bytes(
    stop_at: float, photo: Path, model: VisionLongformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_source: object, share: float, _pixels: int) -> None:
        seen.append(share)
        if share >= stop_at and len(seen) < 1000:
            raise StoppedError

    seen: list[float] = []
    encode(photo, tmp_path / "whole", model, "spilled", work_folder=tmp_path / "work")
    with pytest.raises(StoppedError):
        encode(photo, tmp_path / "out", model, "spilled", work_folder=tmp_path / "work", on_band=stop)
    work = work_folder_of("x.png", Limits(work_folder=tmp_path / "work"), tmp_path / "out")
    assert (work / PLAN).exists()
    again: list[float] = []
    # What was begun by spilling goes on so, even if there is room for the whole image.
    encode(
        photo, tmp_path / "out", model, "auto", work_folder=tmp_path / "work", on_band=lambda *at: again.append(at[1])
    )
    assert again
    assert stop_at < 0.5 or again[0] > 0.2
    same = [(tmp_path / folder / "x.png.safetensors").read_bytes() for folder in ("whole", "out")]
    assert same[0] == same[1]
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize("changed", ["content", "max_side", "way", "kind"])
def test_what_was_begun_does_not_serve_another_question(
    changed: str, raster: Path, model: VisionLongformer, tmp_path: Path
) -> None:
    """Not even for an image with other pixels, of the same size and time."""

    def stop(_source: object, share: float, _pixels: int) -> None:
        if share >= 0.6:
            raise StoppedError

    with pytest.raises(StoppedError):
        encode(raster, tmp_path / "out", model, "spilled", on_band=stop)
    assert (work_folder_of("x.tif", Limits(), tmp_path / "out") / PLAN).exists()
    status, kind = raster.stat(), "safetensors"
    options: dict[str, Any] = {"way": "auto"}
    if changed == "content":
        pixels = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        tifffile.imwrite(raster, pixels, photometric="rgb")
        os.utime(raster, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert raster.stat().st_size == status.st_size
        options = {"way": "spilled"}
    elif changed == "max_side":
        options["max_side"] = 100
    elif changed == "way":
        options = {"way": "whole"}
    else:
        pytest.importorskip("zarr")
        kind = "zarr"
    fresh: dict[str, Any] = {"model": model, "kind": kind} | options
    assert encode(raster, tmp_path / "out", **fresh)[0].status == "encoded"
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == [f"x.tif.{kind}"]
    if kind == "safetensors":
        encode(raster, tmp_path / "fresh", **fresh)
        assert (tmp_path / "out/x.tif.safetensors").read_bytes() == (tmp_path / "fresh/x.tif.safetensors").read_bytes()


def test_an_image_of_the_wrong_kind_leaves_no_work_behind(model: VisionLongformer, tmp_path: Path) -> None:
    pixels = np.zeros((HEIGHT, WIDTH, 5), np.uint8)
    tifffile.imwrite(tmp_path / "five.tif", pixels, photometric="minisblack", planarconfig="contig")
    (result,) = encode(tmp_path / "five.tif", tmp_path / "out", model, "spilled")
    assert result.status == "failed"
    assert "5 channels" in result.message
    assert not list((tmp_path / "out").glob("*"))


def test_a_full_disk_is_a_sentence_and_what_was_finished_stays(
    photo: Path, model: VisionLongformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int, _buffers: Sequence[memoryview], _place: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(OutputError, match=r"\.map: the disk is full; make room there"):
        encode(photo, tmp_path / "out", model, "spilled")
    assert (tmp_path / "out" / strategies.WORK_FOLDER).is_dir()
    monkeypatch.undo()
    encode(photo, tmp_path / "out", model, "spilled")
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["x.png.safetensors"]


def test_a_disk_without_room_is_seen_before_work_begins(
    photo: Path, model: VisionLongformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategies, "free_disk", lambda _: 1000)
    (result,) = encode(photo, tmp_path / "out", model, "spilled")
    assert result.status == "failed"
    assert "of files are more than the 1.0 KB that are free): make room for files or choose" in result.message
    assert "of memory" not in result.message


@pytest.mark.parametrize(
    ("way", "kind"), [("streamed", "safetensors"), ("spilled", "safetensors"), ("spilled", "zarr")]
)
def test_an_image_that_cannot_be_read_for_its_mask_is_a_sentence_and_its_maps_stay(
    way: Strategy, kind: str, raster: Path, model: VisionLongformer, tmp_path: Path
) -> None:
    def lose(_source: object, share: float, _pixels: int) -> None:
        if share > 1 - 1e-9:
            os.truncate(raster, 500)

    def encoded(on_band: Any) -> Result:
        (result,) = encode(raster, tmp_path / "out", model, way, kind=kind, pictures=True, on_band=on_band)
        return result

    if kind == "zarr":
        pytest.importorskip("zarr")
    content, status = raster.read_bytes(), raster.stat()
    lost = encoded(lose)
    assert lost.status == "failed"
    assert lost.message == (
        "it could be read once, but not a second time while its features were written: it is damaged or cut short"
    )
    assert lost.message in (tmp_path / "out" / "index.html").read_text()
    left = [] if way == "streamed" else [strategies.WORK_FOLDER]
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [*left, "index.html"]

    raster.write_bytes(content)
    os.utime(raster, ns=(status.st_atime_ns, status.st_mtime_ns))
    bands: list[object] = []
    assert encoded(lambda *_: bands.append(_)).status == "encoded"
    assert bool(bands) == (way == "streamed")  # what was spilled is not done again


def test_an_image_that_cannot_be_read_for_the_report_keeps_its_features(
    raster: Path, model: VisionLongformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_and_lose(*arguments: Any, **options: Any) -> None:
        write_features(*arguments, **options)
        os.truncate(raster, 500)

    monkeypatch.setattr(writer, "write_features", write_and_lose)
    (result,) = encode(raster, tmp_path / "out", model, "spilled", pictures=True)
    sentence = "its picture is missing from the report, as it could not be read again: it is damaged or cut short"
    assert (result.status, result.message) == ("encoded", sentence)
    assert set(load_file(tmp_path / "out" / "x.tif.safetensors")) == {"stage2", "stage4", "embedding"}
    page = Page(tmp_path / "out" / "index.html")
    assert sentence in page.text
    assert [image["alt"] for image in page.images] == ["Stage 2 of x.tif", "Stage 4 of x.tif"]
    assert not (tmp_path / "out" / strategies.WORK_FOLDER).exists()


@pytest.mark.parametrize("kind", ["safetensors", "auto", "zarr"])
def test_an_array_in_zarr_is_an_image(model: VisionLongformer, tmp_path: Path, kind: str) -> None:
    zarr = pytest.importorskip("zarr")
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    zarr.save_array(str(tmp_path / "x.zarr"), pixels)
    assert [source.name for source in find_images([str(tmp_path / "x.zarr")])] == ["x.zarr"]
    (result,) = encode(tmp_path / "x.zarr", tmp_path / "out", model, "streamed", kind=kind)
    assert (result.status, result.message) == ("encoded", "")
    expected = Encoder(model, stages=(2, 4)).encode(pixels)
    (written,) = (path for path in (tmp_path / "out").iterdir() if path.name.startswith("x.zarr"))
    assert written.suffix == (".zarr" if kind == "zarr" else ".safetensors")
    found = load_features(written).maps[1].tensor()
    torch.testing.assert_close(found, expected.maps[1], rtol=1e-4, atol=1e-5)
    assert encode(tmp_path / "x.zarr", tmp_path / "out", model, "whole", kind=kind)[0].status == "skipped"
