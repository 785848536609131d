"""Feature files in formats other than safetensors: the same run, the same rules."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.test_extract import HEIGHT, WIDTH, encode, save_photo, statuses
from vision_longformer import VisionLongformer, create_model
from vision_longformer.features.descriptions import read_metadata
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.failures import OutputError
from vision_longformer.features.formats.table import safetensors_bytes
from vision_longformer.features.load import load_features
from vision_longformer.features.resume import PLAN, WorkFolder
from vision_longformer.features.strategies import Limits, work_folder_of
from vision_longformer.images import read_georeference

zarr = pytest.importorskip("zarr")
rasterio = pytest.importorskip("rasterio")


def save_raster(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH)).astype(np.uint8)
    place = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(500_000, 5_400_000, 10, 10)}
    profile: dict[str, Any] = {"height": HEIGHT, "width": WIDTH, "count": 3, "dtype": "uint8", **place}
    with rasterio.open(path, "w", driver="GTiff", photometric="RGB", **profile) as file:
        file.write(pixels)
    return path


def test_zarr_holds_what_safetensors_hold(tmp_path: Path, output: Path, model: VisionLongformer) -> None:
    photo = save_photo(tmp_path / "x.png")
    for kind in ("safetensors", "zarr"):
        encode([photo], output, model, stages=[2, 4], kind=kind)
    expected, found = (load_features(output / f"x.png.{kind}") for kind in ("safetensors", "zarr"))
    assert found.metadata == expected.metadata
    for mine, other in zip((*found.maps, found.valid), (*expected.maps, expected.valid), strict=True):
        assert torch.equal(mine.tensor(), other.tensor())
    assert torch.equal(found.embedding, expected.embedding)
    assert [tuple(tokens.shape) for tokens in found.global_tokens] == [(1, 64), (0, 256)]


@pytest.mark.parametrize("kind", ["zarr", "geotiff"])
def test_a_second_run_skips_what_is_done_and_replaces_what_differs(
    tmp_path: Path, output: Path, model: VisionLongformer, kind: str
) -> None:
    raster = save_raster(tmp_path / "x.tif")
    assert statuses(encode([raster], output, model, kind=kind)) == ["encoded"]
    assert statuses(encode([raster], output, model, kind=kind)) == ["skipped"]
    assert statuses(encode([raster], output, model, kind=kind, dtype="float32")) == ["encoded"]
    metadata = read_metadata(output / f"x.tif.{kind}")
    assert metadata is not None
    assert metadata["dtype"] == "float32"
    assert [path.name for path in output.iterdir()] == [f"x.tif.{kind}"]


@pytest.mark.parametrize("max_side", [None, 40])
def test_rasters_lie_where_the_image_does(
    tmp_path: Path, output: Path, model: VisionLongformer, max_side: int | None
) -> None:
    raster = save_raster(tmp_path / "x.tif")
    encode([raster], output, model, stages=[1, 4], kind="geotiff", max_side=max_side)
    features = Encoder(model, stages=[1, 4], max_side=max_side).encode(raster)
    height, width = features.valid.shape
    with rasterio.open(raster) as image:
        for stage, stride, expected in ((1, 4, features.maps[0]), (4, 32, features.maps[1])):
            with rasterio.open(output / "x.tif.geotiff" / f"stage{stage}.tif") as file:
                assert file.crs == image.crs
                assert file.bounds.left == image.bounds.left
                assert file.bounds.top == image.bounds.top
                assert file.transform.a == pytest.approx(10 * stride * WIDTH / width)
                assert file.transform.e == pytest.approx(-10 * stride * HEIGHT / height)
                assert np.array_equal(file.read(), expected.half().float().numpy())
    metadata = read_metadata(output / "x.tif.geotiff")
    assert metadata is not None
    assert metadata["georeference"]["transform"][0] == pytest.approx(10 * WIDTH / width)


def test_zarr_says_where_the_image_lies(tmp_path: Path, output: Path, model: VisionLongformer) -> None:
    raster = save_raster(tmp_path / "x.tif")
    encode([raster], output, model, kind="zarr")
    metadata = read_metadata(output / "x.tif.zarr")
    assert metadata is not None
    assert metadata["georeference"] == read_georeference(raster)
    assert metadata["georeference"]["transform"] == [10, 0, 500_000, 0, -10, 5_400_000]


def test_a_photograph_is_no_geotiff_but_others_are(tmp_path: Path, output: Path, model: VisionLongformer) -> None:
    photo, plain, raster = (
        save_photo(tmp_path / "x.png"),
        save_photo(tmp_path / "x.tiff"),
        save_raster(tmp_path / "y.tif"),
    )
    results = encode([photo, plain, raster], output, model, kind="geotiff")
    assert statuses(results) == ["failed", "failed", "encoded"]
    for result in results[:2]:
        assert "it does not say where on earth it lies, which GeoTIFF needs" in result.message


def test_folders_of_something_else_are_not_replaced(tmp_path: Path, output: Path, model: VisionLongformer) -> None:
    photo = save_photo(tmp_path / "x.png")
    mine = output / "x.png.zarr" / "mine"
    mine.parent.mkdir(parents=True)
    mine.touch()
    with pytest.raises(OutputError, match="a folder of this name that holds something else"):
        encode([photo], output, model, kind="zarr")
    assert mine.exists()
    mine.unlink()
    assert statuses(encode([photo], output, model, kind="zarr")) == ["encoded"]


def test_a_full_disk_leaves_what_was_finished(
    tmp_path: Path, output: Path, model: VisionLongformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = save_photo(tmp_path / "a.png"), save_photo(tmp_path / "b.png", seed=1)
    encode([first], output, model, kind="zarr")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("zarr.storage._local._put", full)
        with pytest.raises(OutputError, match=r"b\.png\.zarr: the disk is full; make room and run again"):
            encode([first, second], output, model, kind="zarr")
    assert [path.name for path in output.iterdir()] == ["a.png.zarr"]
    assert statuses(encode([first, second], output, model, kind="zarr")) == ["skipped", "encoded"]


# --- the format that fits ---------------------------------------------------------------------------------------


def test_what_is_spilled_becomes_zarr_and_says_so(tmp_path: Path, output: Path, model: VisionLongformer) -> None:
    photo = save_photo(tmp_path / "x.png")
    (spilled,) = encode([photo], output, model, kind="auto", limits=Limits("spilled"))
    assert spilled.message == "written as Zarr, as its maps were spilled"
    assert [path.name for path in output.iterdir()] == ["x.png.zarr"]
    assert statuses(encode([photo], output, model, kind="auto")) == ["skipped"]
    (whole,) = encode([photo], tmp_path / "whole", model, kind="auto")
    assert whole.message == ""
    expected, found = load_features(tmp_path / "whole" / "x.png.safetensors"), load_features(output / "x.png.zarr")
    for mine, other in zip(found.maps, expected.maps, strict=True):
        torch.testing.assert_close(mine.tensor(), other.tensor(), atol=2e-3, rtol=2e-3)
    assert torch.equal(found.valid.tensor(), expected.valid.tensor())


def test_features_of_an_earlier_run_in_the_other_format_stay_and_are_named(
    tmp_path: Path, output: Path, model: VisionLongformer
) -> None:
    photo, other = save_photo(tmp_path / "x.png"), create_model("vision_longformer_nano", num_classes=0)
    assert isinstance(other, VisionLongformer)
    encode([photo], output, model, kind="auto")
    (result,) = encode([photo], output, other, kind="auto", limits=Limits("spilled"))
    outdated = output / "x.png.safetensors"
    assert f"{outdated} is of an earlier run: remove it if you do not need it" in result.message
    assert outdated.exists()
    outdated.unlink()
    (again,) = encode([photo], output, model, kind="auto", limits=Limits("spilled"))
    assert (again.status, again.message) == ("encoded", "written as Zarr, as its maps were spilled")


def test_a_run_that_skips_leaves_the_work_of_another(tmp_path: Path, output: Path, model: VisionLongformer) -> None:
    photo = save_photo(tmp_path / "x.png")
    encode([photo], output, model)
    path = work_folder_of("x.png", Limits(), output)
    with WorkFolder(path, "of other settings") as other:
        other.begin(123)
        assert statuses(encode([photo], output, model)) == ["skipped"]
        assert (path / PLAN).exists()


def test_work_files_of_a_run_that_was_stopped_late_are_removed(
    tmp_path: Path, output: Path, model: VisionLongformer
) -> None:
    photo = save_photo(tmp_path / "x.png")
    encode([photo], output, model, kind="auto", limits=Limits("spilled"))
    left = work_folder_of("x.png", Limits(), output)
    left.mkdir(parents=True)
    (left / "stage4.map").touch()
    assert statuses(encode([photo], output, model, kind="auto")) == ["skipped"]
    assert [path.name for path in output.iterdir()] == ["x.png.zarr"]


def test_what_could_not_be_written_is_refused_before_work_begins(
    tmp_path: Path, output: Path, model: VisionLongformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, spilled = save_photo(tmp_path / "x.png"), Limits("spilled")
    begun: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr("vision_longformer.features.strategies.stream", begun.append)
        patch.setattr("importlib.util.find_spec", lambda _name: None)
        (result,) = encode([photo], output, model, kind="auto", limits=spilled)
        assert "its maps would be spilled, and writing Zarr needs zarr: pip install" in result.message
    with monkeypatch.context() as patch:
        patch.setattr("vision_longformer.features.strategies.stream", begun.append)
        patch.setattr("vision_longformer.features.writer.safetensors_bytes", lambda *_: 10**15)
        (result,) = encode([photo], output, model, kind="safetensors", limits=spilled)
        assert "choose Zarr (--format zarr), which is written in pieces" in result.message
    assert begun == []
    assert statuses(encode([photo], output, model, kind="safetensors", limits=spilled)) == ["encoded"]


def test_what_safetensors_take_is_known(model: VisionLongformer) -> None:
    found = safetensors_bytes(model.config, (45, 77), (2, 4), torch.float16)  # maps of 6 × 10 × 64 and 2 × 3 × 256
    assert found == 4 * 3840 + 2 * 2 * (3840 + 1536) + 2 * 45 * 77
