"""A pixel is missing if a channel that is taken has no data there, and opacity is not part of its colour."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray

from vision_longformer import Encoder, VisionLongformer
from vision_longformer.images import ArrayReader, open_reader, read_array, read_pixels, unit_rows
from vision_longformer.variants import CONFIGS

HEIGHT, WIDTH = 19, 31
NO_DATA = 42113  # GDAL's tag


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(10, 250, shape, dtype=np.uint8)


@pytest.fixture(params=[True, False], ids=["rasterio", "without rasterio"])
def with_rasterio(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        pytest.importorskip("rasterio")
    else:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)


@pytest.mark.usefixtures("with_rasterio")
@pytest.mark.filterwarnings("ignore::UserWarning")  # of rasterio, about files without a place on earth
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_no_data_in_one_channel_makes_the_pixel_missing(tmp_path: Path, dtype: str) -> None:
    array = (noise(HEIGHT, WIDTH, 5) / (1 if dtype == "uint8" else 255)).astype(dtype)
    nothing = 7 if dtype == "uint8" else -9999
    array[3, 4, 1] = array[5, 6, 4] = nothing
    tifffile.imwrite(
        tmp_path / "a.tif", array, photometric="minisblack", planarconfig="contig",
        extratags=[(NO_DATA, "s", 0, str(nothing), True)],
    )  # fmt: skip
    for channels, missing in {None: [[3, 4], [5, 6]], (0, 1, 2): [[3, 4]], (4,): [[5, 6]], (2, 0): []}.items():
        with closing(open_reader(tmp_path / "a.tif", channels=channels)) as reader:
            values, valid = unit_rows(reader, 0, HEIGHT, 5 if channels is None else len(channels))
        assert valid.logical_not().nonzero().tolist() == missing
        assert values.min() >= 0


@pytest.mark.usefixtures("with_rasterio")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("nodata", [False, True])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_colours_that_were_multiplied_by_opacity_become_straight(
    tmp_path: Path, dtype: str, planar: str, nodata: bool
) -> None:
    scale = 1.0 if dtype == "float32" else float(np.iinfo(dtype).max)
    straight = np.random.default_rng(1).random((HEIGHT, WIDTH, 4)) * 0.5 + 0.4
    straight[:4, ..., 3] = 0
    multiplied = straight[..., :3] * straight[..., 3:]
    stored = np.concatenate([multiplied, straight[..., 3:]], axis=2) * scale
    stored = stored.astype(dtype) if dtype == "float32" else stored.round().astype(dtype)
    laid_out = np.moveaxis(stored, 2, 0) if planar == "separate" else stored
    tags = [(NO_DATA, "s", 0, "77777", True)] if nodata else []
    tifffile.imwrite(
        tmp_path / "a.tif", laid_out, photometric="rgb", planarconfig=planar, extrasamples=["assocalpha"],
        extratags=tags,
    )  # fmt: skip
    pixels = read_pixels(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels.valid.numpy(), straight[..., 3] > 0)
    np.testing.assert_allclose(
        pixels.values[4:].numpy(), straight[4:, :, :3], atol=2 / 255 if dtype == "uint8" else 1e-4
    )


def test_straight_opacity_leaves_colours_alone(tmp_path: Path) -> None:
    array = noise(HEIGHT, WIDTH, 4)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_array(tmp_path / "a.tif")[0], array)


@pytest.mark.parametrize("channels", [None, 3])
def test_what_an_array_masks_is_missing(channels: int | None) -> None:
    array = noise(HEIGHT, WIDTH) if channels is None else noise(HEIGHT, WIDTH, channels)
    hidden = np.zeros(array.shape, np.bool_)
    hidden[2, 3:5] = True
    if channels:
        hidden[6, 7, 1] = True
    valid = ~(hidden if channels is None else hidden.any(axis=2))
    masked = np.ma.MaskedArray(array, hidden)
    pixels = read_pixels(masked)
    np.testing.assert_array_equal(pixels.valid.numpy(), valid)
    assert torch.equal(Encoder(VisionLongformer(CONFIGS["vision_longformer_nano"])).encode(masked).valid, pixels.valid)
    also = np.ones((HEIGHT, WIDTH), np.bool_)
    also[9] = False
    seen = ArrayReader(masked, valid=also).read_rows(0, HEIGHT).seen
    assert seen is not None
    np.testing.assert_array_equal(seen, valid & also)
    assert read_pixels(np.ma.MaskedArray(array)).valid.all()
