"""A file gives the same pixels, and the same ones are missing, whoever reads it and how."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from vision_longformer import Encoder, VisionLongformer
from vision_longformer.datasets.classification import Samples
from vision_longformer.datasets.loaders import Images
from vision_longformer.images import (
    PillowReader,
    describe_image,
    open_reader,
    read_array,
    read_pixels,
    read_rgb,
    unit_rows,
)
from vision_longformer.variants import CONFIGS

HEIGHT, WIDTH = 37, 53


class Stored(NamedTuple):
    """What a file must give: (H, W, 3) values in [0, 1], and (H, W) which of them are there."""

    values: NDArray[Any]
    valid: NDArray[np.bool_]


def noise(*shape: int, dtype: str = "uint8") -> NDArray[Any]:
    return np.random.default_rng(0).integers(1, np.iinfo(dtype).max, shape, dtype=dtype)


def gray(values: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(values[..., None], 3, axis=2)


def everything() -> NDArray[np.bool_]:
    return np.ones((HEIGHT, WIDTH), np.bool_)


def hole() -> NDArray[np.bool_]:
    valid = everything()
    valid[:9, 5:30] = False
    return valid


def write_white_is_zero(path: Path) -> Stored:
    array = noise(HEIGHT, WIDTH, dtype="uint16")
    tifffile.imwrite(path, array, photometric="miniswhite")
    return Stored(gray(1 - array / 65535), everything())


def write_planes(path: Path) -> Stored:
    array = noise(3, HEIGHT, WIDTH, dtype="uint16")
    tifffile.imwrite(path, array, photometric="rgb", planarconfig="separate")
    return Stored(np.moveaxis(array, 0, 2) / 65535, everything())


def write_fractions(path: Path) -> Stored:
    array = np.random.default_rng(0).random((HEIGHT, WIDTH, 3)).astype(np.float32)
    tifffile.imwrite(path, array, photometric="rgb")
    return Stored(array, everything())


def write_without_some_tiles(path: Path) -> Stored:
    rasterio = pytest.importorskip("rasterio")
    array = noise(3, HEIGHT, WIDTH)
    array[:, :32] = array[:, :, :32] = 0
    tiles = {"tiled": True, "blockxsize": 32, "blockysize": 32, "SPARSE_OK": True}
    with rasterio.open(path, "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=3, dtype="uint8", **tiles) as file:
        file.write(array[:, 32:, 32:], window=((32, HEIGHT), (32, WIDTH)))
    return Stored(np.moveaxis(array, 0, 2) / 255, everything())


def write_without_data(path: Path) -> Stored:
    rasterio = pytest.importorskip("rasterio")
    array = noise(3, HEIGHT, WIDTH)
    array[:, ~hole()] = 0
    with rasterio.open(path, "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=3, dtype="uint8", nodata=0) as file:
        file.write(array)
    return Stored(np.moveaxis(array, 0, 2) / 255, hole())


def write_masked(path: Path, *, internal: bool = True) -> Stored:
    rasterio = pytest.importorskip("rasterio")
    array = noise(3, HEIGHT, WIDTH)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal),
        rasterio.open(path, "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=3, dtype="uint8") as file,
    ):
        file.write(array)
        file.write_mask(hole())
    return Stored(np.where(hole()[..., None], np.moveaxis(array, 0, 2) / 255, 0), hole())


def write_masked_beside(path: Path) -> Stored:
    return write_masked(path, internal=False)


def write_palette(path: Path) -> Stored:
    picture = Image.fromarray(noise(HEIGHT, WIDTH, 3)).quantize(32)
    picture.save(path)
    return Stored(np.asarray(picture.convert("RGB")) / 255, everything())


def write_turned(path: Path) -> Stored:
    array = noise(WIDTH, HEIGHT, 3)
    tifffile.imwrite(path, array, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    return Stored(np.rot90(array, -1) / 255, everything())


def write_turned_inks(path: Path) -> Stored:
    picture = Image.fromarray(noise(WIDTH, HEIGHT, 4), mode="CMYK")
    picture.save(path, tiffinfo={274: 8})
    return Stored(np.rot90(np.asarray(picture.convert("RGB"))) / 255, everything())


KINDS: list[Callable[[Path], Stored]] = [
    write_white_is_zero,
    write_planes,
    write_fractions,
    write_without_some_tiles,
    write_without_data,
    write_masked,
    write_masked_beside,
    write_palette,
    write_turned,
    write_turned_inks,
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(VisionLongformer(CONFIGS["vision_longformer_nano"]))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of rasterio, about files without a place on earth
@pytest.mark.parametrize("write", KINDS, ids=lambda write: write.__name__.removeprefix("write_"))
def test_every_door_gives_the_same(tmp_path: Path, encoder: Encoder, write: Callable[[Path], Stored]) -> None:
    path = tmp_path / "a.tif"
    expected = write(path)
    values = torch.from_numpy(np.ascontiguousarray(expected.values, np.float32))
    valid = torch.from_numpy(expected.valid)
    for pixels in (read_pixels(path), encoder.read(path), read_pixels(path, max_side=WIDTH)):
        torch.testing.assert_close(pixels.values, values)
        assert torch.equal(pixels.valid, valid)
        assert pixels.original_size == (HEIGHT, WIDTH)
    assert torch.equal(encoder.encode(path).valid, valid)
    with closing(open_reader(path)) as reader:
        assert reader.info.size == describe_image(path).size == (HEIGHT, WIDTH)
        bands = [unit_rows(reader, top, min(top + 7, HEIGHT), 3) for top in range(0, HEIGHT, 7)]
    assert torch.equal(torch.cat([band for band, _ in bands]), pixels.values)
    assert torch.equal(torch.cat([mask for _, mask in bands]), valid)
    rgb = (values * 255).round().byte()
    assert (torch.from_numpy(np.array(read_rgb(path))).int() - rgb.int()).abs().max() <= 1
    samples = Samples((path,), (0,), ("a",))
    trained_on = Images(samples, np.array, seed=0, max_pixels=10**6)[0].image  # type: ignore[union-attr]
    np.testing.assert_array_equal(trained_on, np.array(read_rgb(path)))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_mask_is_kept_at_every_level_of_a_pyramid(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_masked(tmp_path / "a.tif")
        with rasterio.open(tmp_path / "a.tif", "r+") as file:
            file.build_overviews([2], rasterio.enums.Resampling.nearest)
    with rasterio.open(tmp_path / "a.tif", overview_level=0) as file:
        expected = file.dataset_mask() > 0
    with closing(open_reader(tmp_path / "a.tif", level=1)) as reader:
        _, valid = unit_rows(reader, 0, reader.info.height, 3)
    np.testing.assert_array_equal(valid.numpy(), expected)
    assert not valid.all()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_pillow_sets_no_limit_to_the_size_of_a_tiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    array = noise(HEIGHT, WIDTH, 4)
    Image.fromarray(array if mode == "CMYK" else array[..., 0], mode=mode).save(tmp_path / "a.tif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    values, note = read_array(tmp_path / "a.tif")
    assert values.shape[:2] == (HEIGHT, WIDTH)
    assert note == ""


def test_without_imagecodecs_pillow_decodes_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = noise(HEIGHT, WIDTH, 3)
    Image.fromarray(array).save(tmp_path / "a.tif", compression="tiff_lzw")
    codecs = dict.fromkeys([8], tifffile.TIFF.DECOMPRESSORS[8])

    class Few(dict[int, Any]):
        def __missing__(self, key: int) -> Any:
            raise KeyError(f"{key} requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", Few(codecs))
    reader = open_reader(tmp_path / "a.tif")
    assert isinstance(reader.reader, PillowReader)
    np.testing.assert_array_equal(reader.read_rows(0, HEIGHT).values, array)
    reader.close()
    with pytest.raises(ValueError, match=r"a\.tif: decoding it needs imagecodecs: pip install"):
        open_reader(tmp_path / "a.tif", level=0, max_pixels=100)


def test_more_pixels_than_a_whole_image_may_have_are_refused_by_every_reader(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(HEIGHT, WIDTH))
    np.save(tmp_path / "a.npy", noise(HEIGHT, WIDTH))
    for name in ("a.tif", "a.npy"):
        for read in (read_pixels, read_rgb, read_array):
            with pytest.raises(ValueError, match=rf"{name}: it has 53×37 pixels by its header, more than the limit"):
                read(tmp_path / name, max_pixels=100)
        open_reader(tmp_path / name, max_pixels=100).close()  # by rows, any size is read
