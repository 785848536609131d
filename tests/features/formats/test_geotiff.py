from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from features.formats.cases import (
    CHANNELS,
    HEIGHT,
    METADATA,
    PLACE,
    STAGES,
    STRIDES,
    WIDTH,
    encoded,
    features,
    token_mask,
)
from vision_longformer.features.formats import chunks, write_geotiff
from vision_longformer.features.formats.geotiff import read_geotiff_metadata
from vision_longformer.features.formats.noting_file import NotingFile

rasterio = pytest.importorskip("rasterio")


def write(folder: Path, dtype: torch.dtype = torch.float32, place: dict[str, Any] | None = None) -> None:
    folder.mkdir()
    write_geotiff(folder, encoded(place=place or PLACE), METADATA, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_rasters_hold_the_maps(tmp_path: Path, dtype: torch.dtype) -> None:
    write(tmp_path / "x", dtype)
    expected = features()
    for number, stage in enumerate(STAGES):
        with rasterio.open(tmp_path / "x" / f"stage{stage}.tif") as file:
            found = file.read()
            assert np.isnan(file.nodata)
            assert file.profile["tiled"]
            assert file.profile["compress"] == "deflate"
            assert json.loads(file.tags()["vision_longformer"]) == METADATA
        valid = token_mask(expected.valid, STRIDES[number]).numpy()
        assert np.isnan(found[:, ~valid]).all()
        assert np.array_equal(found[:, valid], expected.maps[number].to(dtype).float().numpy()[:, valid])


def test_half_precision_takes_half_the_room(tmp_path: Path) -> None:
    sizes = []
    for dtype in (torch.float16, torch.float32):
        write(tmp_path / str(dtype), dtype)
        sizes.append((tmp_path / str(dtype) / "stage1.tif").stat().st_size)
    assert sizes[0] < 0.7 * sizes[1]


def test_tokens_lie_where_their_pixels_do(tmp_path: Path) -> None:
    turned = {"crs": "EPSG:32633", "transform": [8.0, 3.0, 500_000.0, 3.0, -8.0, 5_400_000.0]}
    for name, place in (("north", PLACE), ("turned", turned)):
        write(tmp_path / name, place=place)
        image = rasterio.Affine(*place["transform"])
        for stage, stride in zip(STAGES, STRIDES, strict=True):
            with rasterio.open(tmp_path / name / f"stage{stage}.tif") as file:
                assert (file.height, file.width) == (-(-HEIGHT // stride), -(-WIDTH // stride))
                assert file.crs.to_epsg() == 32633
                for row, column in ((0, 0), (HEIGHT - 1, WIDTH - 1), (150, 31)):
                    x, y = rasterio.transform.xy(image, row, column)  # the centre of a pixel
                    assert file.index(x, y) == (row // stride, column // stride)


def test_other_features_and_the_description_are_beside_the_rasters(tmp_path: Path) -> None:
    write(tmp_path / "x", torch.float16)
    expected = features()
    found = load_file(tmp_path / "x" / "tokens.safetensors")
    assert torch.equal(found["embedding"], expected.embedding.half())
    assert torch.equal(found["stage1_global_tokens"], expected.global_tokens[0].half())
    assert found["stage3_global_tokens"].shape == (0, CHANNELS[1])
    assert read_geotiff_metadata(tmp_path / "x") == METADATA


def test_maps_are_written_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "BAND_BYTES", 32 * 131 * 5 * 4)
    write(tmp_path / "x")
    with rasterio.open(tmp_path / "x" / "stage1.tif") as file:
        assert file.block_shapes[0] == (32, 256)
        found = file.read()
    expected = features().maps[0].numpy()
    seen = ~np.isnan(found)
    assert np.array_equal(found[seen], expected[seen])


def test_an_image_without_a_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it has no georeference, which GeoTIFF needs"):
        write_geotiff(tmp_path, encoded(), METADATA, dtype=torch.float16)


def test_without_rasterio_the_package_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    with pytest.raises(ImportError, match=r"pip install 'vision-longformer\[geo\]'"):
        write(tmp_path / "x")


@pytest.mark.parametrize("allowed", [0, 20_000, 100_000])
def test_a_full_disk_is_an_error_and_prints_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], allowed: int
) -> None:
    written = 0
    write_bytes = NotingFile.write

    def full(file: NotingFile, data: Any) -> int:
        nonlocal written
        written += len(data)
        if written > allowed:
            file._errors.append(OSError(errno.ENOSPC, "No space left on device"))
            return len(data)
        return write_bytes(file, data)

    monkeypatch.setattr(NotingFile, "write", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "x")
    assert capfd.readouterr() == ("", "")


def test_what_else_goes_wrong_names_the_raster(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"stage1\.tif: "):
        write(tmp_path / "x", place=PLACE | {"crs": "no such system"})


def test_a_file_notes_errors_and_goes_on(tmp_path: Path) -> None:
    errors: list[OSError] = []
    (tmp_path / "x").write_bytes(b"abc")
    file = NotingFile(tmp_path / "x", "r", errors)
    assert file.read() == b"abc"
    assert file.write(b"12345") == 5  # opened for reading
    assert len(errors) == 1
    file.close()
