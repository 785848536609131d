"""Rasters keep their place on earth, and their missing pixels are not valid."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from images.test_tiff import HEIGHT, WIDTH, assert_rows, values
from vision_longformer.images import ImageError, open_reader, read_georeference
from vision_longformer.images.geotiff import scaled_georeference

rasterio = pytest.importorskip("rasterio")
from rasterio import shutil  # noqa: E402
from rasterio.transform import Affine, from_origin  # noqa: E402

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


def test_a_level_has_the_same_corner_and_larger_pixels(tmp_path: Path) -> None:
    with (
        rasterio.MemoryFile() as memory,
        memory.open(driver="GTiff", height=1200, width=1100, count=1, dtype="uint8", **PLACE) as file,
    ):
        file.write(np.zeros((1, 1200, 1100), np.uint8))
        shutil.copy(file, tmp_path / "a.tif", driver="COG")
    reader = open_reader(tmp_path / "a.tif", level=1)
    assert (reader.info.height, reader.info.width) == (600, 550)
    assert read_georeference(tmp_path / "a.tif")["transform"] == [10, 0, 500_000, 0, -10, 5_400_000]
    assert read_georeference(tmp_path / "a.tif", level=1)["transform"] == [20, 0, 500_000, 0, -20, 5_400_000]


def test_a_lower_image_has_the_same_corner() -> None:
    place = scaled_georeference({"crs": "x", "transform": [10, 1, 500, 2, -10, 900]}, (4, 3))
    assert place == {"crs": "x", "transform": [30, 4, 500, 6, -40, 900]}
    assert scaled_georeference({}, (4, 3)) == {}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_raster_that_is_turned_keeps_the_place_of_every_pixel(tmp_path: Path, orientation: int) -> None:
    stored = np.arange(1, HEIGHT * WIDTH + 1, dtype=np.uint16).reshape(HEIGHT, WIDTH, 1)
    place = Affine(10, 1, 500_000, 2, -9, 5_400_000)
    write(tmp_path / "a.tif", stored, transform=place)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.filehandle.seek(file.pages[0].aspage().tags["SamplesPerPixel"].offset)  # one, as it is if no tag says so
        file.filehandle.write(struct.pack("<HHIHH", 274, 3, 1, orientation, 0))
    reader = open_reader(tmp_path / "a.tif")
    pixels = reader.read_rows(0, reader.info.height).values[..., 0]
    assert read_georeference(tmp_path / "a.tif") == reader.info.georeference
    turned = Affine(*reader.info.georeference["transform"])
    for number in (1, 2, WIDTH, WIDTH + 1, HEIGHT * WIDTH):
        (row, column), (own_row, own_column) = (np.argwhere(x == number)[0] for x in (pixels, stored[..., 0]))
        assert turned * (column + 0.5, row + 0.5) == pytest.approx(place * (own_column + 0.5, own_row + 0.5))


def test_pixels_without_data_are_not_valid(tmp_path: Path) -> None:
    array = values(3, "float32")
    missing = np.random.default_rng(1).random(array.shape) < 0.1
    array[missing] = -9999
    write(tmp_path / "a.tif", array, nodata=-9999)
    reader = open_reader(tmp_path / "a.tif")
    seen = [reader.read_rows(top, min(top + 20, HEIGHT)).seen for top in range(0, HEIGHT, 20)]
    assert np.array_equal(np.concatenate([mask for mask in seen if mask is not None]), ~missing.any(axis=2))


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


@pytest.mark.parametrize("photometric", ["MINISWHITE", "MINISBLACK"])
@pytest.mark.parametrize(("bits", "dtype"), [(1, "uint8"), (4, "uint8"), (12, "uint16"), (8, "uint8"), (16, "uint16")])
def test_values_have_the_whole_range(tmp_path: Path, bits: int, dtype: str, photometric: str) -> None:
    stored = np.random.default_rng(0).integers(0, 2**bits, (HEIGHT, WIDTH, 1), dtype=dtype)
    few = {} if bits in (8, 16) else {"nbits": bits}
    write(tmp_path / "a.tif", stored, photometric=photometric, **few)
    shares = stored / (2**bits - 1)
    expected = (1 - shares if photometric == "MINISWHITE" else shares) * np.iinfo(dtype).max
    assert_rows(open_reader(tmp_path / "a.tif"), expected.round().astype(dtype))


@pytest.mark.parametrize("gray", [False, True])
def test_indices_become_the_colours_of_their_table(tmp_path: Path, gray: bool) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    if gray:
        colours[:] = colours[:, :1]
    indices = values(1, "uint8")
    write(tmp_path / "a.tif", indices)
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.nodata = 7
        file.write_colormap(1, {index: (*map(int, colour), 255) for index, colour in enumerate(colours)})
    reader = open_reader(tmp_path / "a.tif")
    assert_rows(reader, colours[indices[..., 0]][..., : 1 if gray else 3])
    valid = reader.read_rows(0, HEIGHT).valid
    assert valid is not None
    assert np.array_equal(valid, indices[..., 0] != 7)


def test_white_may_not_be_zero_where_values_have_no_range(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", values(1, "float32"), photometric="MINISWHITE")
    with pytest.raises(ImageError, match=r"a\.tif: zero is white in it, which is not read for values of type float32"):
        open_reader(tmp_path / "a.tif").read_rows(0, 1)


def test_luminance_and_chrominance_become_colours(tmp_path: Path) -> None:
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[:40], colours[40:] = (220, 30, 60), (20, 90, 200)
    write(tmp_path / "a.tif", colours, photometric="YCBCR", compress="jpeg")
    found = open_reader(tmp_path / "a.tif").read_rows(0, HEIGHT).values.astype(int)
    assert np.abs(found - colours)[[0, 20, 60]].max() <= 6


def test_damaged_rasters_are_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write(path, values(3, "uint8"), compress="deflate", tiled=True, blockxsize=32, blockysize=32)
    whole = path.read_bytes()
    path.write_bytes(whole[:-2000])
    with pytest.raises(ImageError) as caught:
        open_reader(path).read_rows(0, HEIGHT)
    assert str(caught.value).startswith(f"{path}: it is ")


def test_a_place_that_lies_in_a_file_beside_the_raster_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", values(3, "uint8"), PROFILE="BASELINE")
    assert (tmp_path / "a.tif.aux.xml").is_file()
    assert read_georeference(tmp_path / "a.tif")["transform"] == [10, 0, 500_000, 0, -10, 5_400_000]


def test_a_height_beyond_what_the_file_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tall.tif"
    pixels = np.zeros((40, 48, 3), np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", extratags=[(33550, "d", 3, (1.0, 1.0, 0.0), True)])
    with tifffile.TiffFile(path) as file:
        height = file.pages[0].aspage().tags[257]
    with path.open("r+b") as stream:
        stream.seek(height.valueoffset)
        stream.write((8_000_000).to_bytes(2 if height.dtype == 3 else 4, "little"))
    with pytest.raises(
        ImageError, match=r"tall\.tif: it is damaged: it names fewer strips or tiles than its size takes"
    ):
        open_reader(path)
