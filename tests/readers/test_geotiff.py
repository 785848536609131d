"""Rasters keep their place on earth, and their missing pixels are not valid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from readers.test_tiff import HEIGHT, WIDTH, assert_rows, values
from vision_longformer.images import ImageError
from vision_longformer.readers import open_reader

rasterio = pytest.importorskip("rasterio")
from rasterio.transform import from_origin  # noqa: E402

PLACE = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_400_000, 10, 10)}


def write(path: Path, array: np.ndarray[Any, Any], **options: Any) -> None:
    height, width, count = array.shape
    settings = {"height": height, "width": width, "count": count, "dtype": array.dtype, **PLACE, **options}
    with rasterio.open(path, "w", **settings) as file:
        file.write(np.moveaxis(array, 2, 0))


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (3, "uint16"), (6, "float32")])
def test_rows_and_place(tmp_path: Path, driver: str, channels: int, dtype: str) -> None:
    array = values(channels, dtype)
    write(tmp_path / "a.tif", array, driver=driver)
    reader = open_reader(tmp_path / "a.tif")
    assert_rows(reader, array)
    assert reader.info.georeference["transform"] == [10, 0, 500_000, 0, -10, 5_400_000]
    assert "33N" in reader.info.georeference["crs"]
    assert reader.read_rows(0, 10).valid is None


def test_pixels_without_data_are_not_valid(tmp_path: Path) -> None:
    array = values(3, "float32")
    missing = np.random.default_rng(1).random((HEIGHT, WIDTH)) < 0.3
    array[missing] = -9999
    write(tmp_path / "a.tif", array, nodata=-9999)
    reader = open_reader(tmp_path / "a.tif")
    seen = [reader.read_rows(top, min(top + 20, HEIGHT)).valid for top in range(0, HEIGHT, 20)]
    assert np.array_equal(np.concatenate([mask for mask in seen if mask is not None]), ~missing)


def test_opacity_is_a_mask_and_no_channel(tmp_path: Path) -> None:
    array = values(4, "uint8")
    seen = np.random.default_rng(1).random((HEIGHT, WIDTH)) < 0.6
    array[..., 3] = seen * 255
    write(tmp_path / "a.tif", array, photometric="RGB", alpha="YES")
    reader = open_reader(tmp_path / "a.tif")
    assert_rows(reader, array[..., :3])
    valid = reader.read_rows(0, HEIGHT).valid
    assert valid is not None
    assert np.array_equal(valid, seen)


def test_damaged_rasters_are_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write(path, values(3, "uint8"), compress="deflate", tiled=True, blockxsize=32, blockysize=32)
    whole = path.read_bytes()
    path.write_bytes(whole[:-2000])
    with pytest.raises(ImageError) as caught:
        open_reader(path).read_rows(0, HEIGHT)
    assert str(caught.value).startswith(f"{path}: it is ")
