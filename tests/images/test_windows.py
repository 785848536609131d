"""A window of an image is what its rows hold there, and nothing else of a tiled file is decoded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from vision_longformer.images import open_reader, tiff
from vision_longformer.images.reader import Window

SIZE = (83, 101)
WINDOW = Window(29, 41, 37, 23)
Pixels = NDArray[np.uint16]


def tiled(path: Path, pixels: Pixels) -> None:
    tifffile.imwrite(path, pixels, tile=(16, 32), compression="zlib", photometric="rgb")


def planes(path: Path, pixels: Pixels) -> None:
    planar = np.moveaxis(pixels, 2, 0)
    tifffile.imwrite(path, planar, tile=(16, 32), photometric="rgb", planarconfig="separate")


def strips(path: Path, pixels: Pixels) -> None:
    tifffile.imwrite(path, pixels, rowsperstrip=7, compression="zlib", photometric="rgb")


def plain(path: Path, pixels: Pixels) -> None:
    tifffile.imwrite(path, pixels, photometric="rgb")


def geotiff(path: Path, pixels: Pixels) -> None:
    rasterio = pytest.importorskip("rasterio")
    about = {"driver": "GTiff", "height": SIZE[0], "width": SIZE[1], "count": 3, "dtype": "uint16", "nodata": 7}
    about |= {"crs": "EPSG:32633", "transform": rasterio.Affine(2, 0, 5e5, 0, -2, 5e6)}
    with rasterio.open(path, "w", **about, tiled=True, blockxsize=32, blockysize=16) as file:
        file.write(np.moveaxis(pixels, 2, 0))


def npy(path: Path, pixels: Pixels) -> None:
    with path.open("wb") as file:
        np.save(file, pixels)


def npy_by_columns(path: Path, pixels: Pixels) -> None:
    with path.open("wb") as file:
        np.save(file, np.asfortranarray(pixels))


def zarr(path: Path, pixels: Pixels) -> None:
    pytest.importorskip("zarr").save_array(path, pixels)


def png(path: Path, pixels: Pixels) -> None:
    Image.fromarray((pixels >> 8).astype(np.uint8)).save(path, format="PNG")


@pytest.mark.parametrize("write", [tiled, planes, strips, plain, geotiff, npy, npy_by_columns, zarr, png])
def test_a_window_is_what_rows_hold_there(write: Callable[[Path, Pixels], None], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (*SIZE, 3)).astype(np.uint16)
    pixels[40:50, 45:50] = 7
    write(tmp_path / "image", pixels)
    for chosen in (None, (2, 0)):
        with closing(open_reader(tmp_path / "image", channels=chosen)) as reader:
            values, valid = reader.read_rows(WINDOW.top, WINDOW.bottom)
            found = reader.read_window(WINDOW)
        np.testing.assert_array_equal(found.values, values[:, WINDOW.left : WINDOW.right])
        assert (found.valid is None) == (valid is None) == (write is not geotiff)
        if valid is not None and found.valid is not None:
            np.testing.assert_array_equal(found.valid, valid[:, WINDOW.left : WINDOW.right])


def test_only_the_tiles_of_a_window_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiled(tmp_path / "a.tif", np.zeros((*SIZE, 3), np.uint16))
    decoded: list[int] = []
    decode = tiff._decode

    def noted(page: Any, segment: int) -> Any:
        decoded.append(segment)
        return decode(page, segment)

    monkeypatch.setattr(tiff, "_decode", noted)
    with closing(open_reader(tmp_path / "a.tif")) as reader:
        reader.read_window(WINDOW)  # columns 41 to 63 are those of one tile of four
    assert decoded == [5, 9, 13, 17]
