"""Images read at a stated scale: against PyTorch's antialiased resizing, and whatever way rows are cut."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from images.slide_cases import write_slide
from vision_longformer.images import ArrayReader, ImageError, Reading, open_reader
from vision_longformer.images.reader import Window
from vision_longformer.images.scale import ScaledReader

SIZE = (120, 90)
PIXELS = np.random.default_rng(0).integers(0, 2**16, (*SIZE, 3)).astype(np.uint16)


def pyramid(path: Path, *, um: float = 0.25, levels: int = 3, side: int = 96) -> NDArray[np.uint8]:
    """Write a slide of noise; return its pixels."""
    array = np.random.default_rng(1).integers(0, 256, (side, 2 * side, 3), dtype=np.uint8)
    write_slide(path, array, um=um, levels=levels)
    return array


@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0, 2.5, 3.0])
def test_pixels_are_those_of_antialiased_resizing(factor: float) -> None:
    found, valid = ScaledReader(ArrayReader(PIXELS), (factor, factor)).read_rows(0, int(SIZE[0] / factor))
    maps = torch.from_numpy(PIXELS.astype(np.float64)).permute(2, 0, 1)[None]
    size = int(SIZE[0] / factor), int(SIZE[1] / factor)  # exact quotients
    expected = F.interpolate(maps, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    assert valid is None
    assert found.shape == (*size, 3)
    np.testing.assert_allclose(np.asarray(found, np.float64), expected.numpy(), atol=0.6)


@pytest.mark.parametrize("factors", [(1.37, 2.61), (0.8, 0.7), (5.0, 3.3)])
def test_pixels_do_not_depend_on_how_they_are_cut(factors: tuple[float, float]) -> None:
    masked = np.ma.masked_less(PIXELS, 20000)
    for pixels in (PIXELS, masked, PIXELS / 2**16):
        reader = ScaledReader(ArrayReader(pixels), factors)
        height, width = reader.info.size
        values, valid = reader.read_rows(0, height)
        for step in (1, 7):
            bands = [reader.read_rows(top, min(top + step, height)) for top in range(0, height, step)]
            np.testing.assert_array_equal(np.concatenate([band.values for band in bands]), values)
        window = Window(3, 5, height // 2, width // 3)
        part = reader.read_window(window)
        place = slice(window.top, window.bottom), slice(window.left, window.right)
        np.testing.assert_array_equal(part.values, values[place])
        if valid is not None:
            there = np.ones(valid[place].shape, bool) if part.valid is None else part.valid
            np.testing.assert_array_equal(there, valid[place])


def test_missing_pixels_are_left_out_of_means() -> None:
    pixels = np.full((8, 8, 1), 100, np.uint8)
    pixels[:, 4:] = 9
    there = np.zeros((8, 8), bool)
    there[:, :4] = True
    values, valid = ScaledReader(ArrayReader(pixels, valid=there), (2, 2)).read_rows(0, 4)
    assert valid is not None
    assert valid.tolist() == [[True, True, False, False]] * 4
    assert (values[:, :2] == 100).all()


@pytest.mark.parametrize(
    ("mpp", "level", "factor"), [(0.25, 0, 1), (0.4, 0, 1.6), (0.5, 1, 1), (0.75, 1, 1.5), (3, 2, 3)]
)
def test_the_next_finer_level_is_taken(mpp: float, level: int, factor: float, tmp_path: Path) -> None:
    array = pyramid(tmp_path / "a.ome.tif")[:: 2**level, :: 2**level]
    with closing(open_reader(tmp_path / "a.ome.tif", mpp=mpp)) as reader:
        values, _ = reader.read_rows(0, reader.info.height)
        assert reader.info.pixel_size == (mpp, mpp)
        assert reader.info.downsample == pytest.approx((mpp / 0.25, mpp / 0.25))
    scaled = ScaledReader(ArrayReader(array), (factor, factor))
    np.testing.assert_array_equal(values, scaled.read_rows(0, scaled.info.height).values)


def test_a_scale_that_a_file_does_not_have_is_a_sentence(tmp_path: Path) -> None:
    pyramid(tmp_path / "a.ome.tif")
    with pytest.raises(ImageError, match=r"a\.ome\.tif: it would have to be enlarged 2\.5 times for this scale"):
        open_reader(tmp_path / "a.ome.tif", mpp=0.1)
    with pytest.raises(ImageError, match="it does not say at which magnification it was taken"):
        open_reader(tmp_path / "a.ome.tif", magnification=20)
    tifffile.imwrite(tmp_path / "b.tif", PIXELS[..., 0])
    with pytest.raises(ImageError, match=r"b\.tif: it does not say how large its pixels are"):
        open_reader(tmp_path / "b.tif", mpp=1)
    with pytest.raises(ValueError, match="level, mpp and magnification: give one of them"):
        Reading(level=1, mpp=0.5)
    with pytest.raises(ValueError, match="mpp=0: must be above 0"):
        Reading(mpp=0)


def test_how_images_are_read_comes_back_from_weights() -> None:
    for reading in (Reading(mpp=0.5), Reading(magnification=20), Reading(level=2)):
        assert Reading.from_dict(reading.to_dict()) == reading


def test_a_slide_says_its_scale(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    array = np.random.default_rng(2).integers(0, 256, (256, 320, 3), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.svs") as file:
        about = "Aperio Image Library v11.2.1\r\n320x256 (256x256) JPEG/RGB Q=70|AppMag = 40|MPP = 0.25"
        file.write(array, tile=(128, 128), photometric="rgb", description=about, metadata=None)
    with (
        closing(open_reader(tmp_path / "a.svs", magnification=20)) as one,
        closing(open_reader(tmp_path / "a.svs", mpp=0.5)) as other,
    ):
        assert one.info.size == other.info.size == (128, 160)
        assert one.info.pixel_size == other.info.pixel_size == (0.5, 0.5)
        values = one.read_rows(0, 128).values
        np.testing.assert_array_equal(values, other.read_rows(0, 128).values)
    whole = ScaledReader(ArrayReader(array), (2, 2))
    np.testing.assert_array_equal(values, whole.read_rows(0, 128).values)
