"""Whole images as training takes them: RGB, or as many channels as the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from training.cases import write_bands
from vision_longformer.images import ImageError, Reading, as_rgb, read_raster, read_rgb
from vision_longformer.images.rasters import resized, size_of, unit_tensor

HEIGHT, WIDTH = 11, 17


def bands(path: Path, channels: int) -> NDArray[np.uint16]:
    values = np.random.default_rng(channels).integers(0, 4001, (HEIGHT, WIDTH, channels)).astype(np.uint16)
    write_bands(path, values)
    return values


def test_a_photograph_is_what_read_rgb_gives(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "a.png")
    raster = read_raster(tmp_path / "a.png")
    assert isinstance(raster, Image.Image)
    np.testing.assert_array_equal(raster, read_rgb(tmp_path / "a.png"))


def test_a_range_of_values_becomes_black_to_white(tmp_path: Path) -> None:
    values = bands(tmp_path / "a.tif", 1)[..., 0]
    raster = read_raster(tmp_path / "a.tif", reading=Reading(value_range=(1000, 3000)))
    expected = np.round(((values.astype(float) - 1000) / 2000).clip(0, 1) * 255)
    for channel in range(3):
        assert np.abs(np.asarray(raster)[..., channel] - expected).max() <= 1


def test_a_range_holds_for_8_bit_colour_too(tmp_path: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT), (50, 100, 150)).save(tmp_path / "a.png")
    raster = read_raster(tmp_path / "a.png", reading=Reading(value_range=(0, 100)))
    assert np.asarray(raster)[0, 0].tolist() == [128, 255, 255]


@pytest.mark.parametrize("channels", [(3, 0), (0, 1, 2, 3), (4, 3, 2, 1, 0)])
def test_other_numbers_of_channels_keep_all_bits_and_their_order(tmp_path: Path, channels: tuple[int, ...]) -> None:
    values = bands(tmp_path / "a.tif", 5)
    reading = Reading(channels=channels, value_range=(0, 4000))
    assert reading.model_channels == len(channels)
    raster = read_raster(tmp_path / "a.tif", reading=reading)
    assert isinstance(raster, np.ndarray)
    np.testing.assert_allclose(raster, values[..., list(channels)] / 4000, atol=1e-6)
    assert size_of(raster) == (HEIGHT, WIDTH)
    assert tuple(unit_tensor(raster).shape) == (len(channels), HEIGHT, WIDTH)


@pytest.mark.parametrize(("channels", "shown"), [((0, 1, 2, 3), (0, 1, 2)), ((3, 0), (3, 3, 3))])
def test_there_is_a_picture_of_every_image(tmp_path: Path, channels: tuple[int, ...], shown: tuple[int, ...]) -> None:
    values = bands(tmp_path / "a.tif", 5)
    picture = as_rgb(read_raster(tmp_path / "a.tif", reading=Reading(channels=channels, value_range=(0, 2000))))
    expected = (values[..., list(shown)] / 2000).clip(0, 1) * 255
    assert np.abs(np.asarray(picture) - expected).max() <= 1


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_arrays_are_resized_as_photographs_are(interpolation: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    photograph = resized(Image.fromarray(values), (10, 12), interpolation)
    array = resized((values / 255).astype(np.float32), (10, 12), interpolation)
    assert isinstance(array, np.ndarray)
    assert np.abs(array.clip(0, 1) * 255 - np.asarray(photograph)).max() < 1.5


def test_channels_that_are_not_there_are_refused(tmp_path: Path) -> None:
    bands(tmp_path / "a.tif", 4)
    with pytest.raises(ImageError, match=r"a\.tif: there is no channel 7, it has 0 to 3"):
        read_raster(tmp_path / "a.tif", reading=Reading(channels=(0, 7)))


def test_a_reading_survives_json() -> None:
    for reading in (Reading(), Reading(2, (3, 1), (0.0, 4095.0))):
        assert Reading.from_dict(reading.to_dict()) == reading
    with pytest.raises(ValueError, match="how images are read is damaged"):
        Reading.from_dict({"level": 0})
