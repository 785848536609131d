"""The reader is chosen by what a file is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from images.test_tiff import HEIGHT, WIDTH, assert_rows, values
from vision_longformer.images import ArrayReader, ChosenReader, ImageError, PillowReader, open_reader, read_pixels
from vision_longformer.images.tiff import TiffReader


@pytest.mark.parametrize("suffix", [".png", ".webp", ".unknown"])
def test_ordinary_images(tmp_path: Path, suffix: str) -> None:
    array = values(3, "uint8")
    Image.fromarray(array).save(tmp_path / f"a{suffix}", format="png" if suffix == ".unknown" else None, lossless=True)
    reader = open_reader(tmp_path / f"a{suffix}")
    assert isinstance(reader.reader, PillowReader)
    assert_rows(reader, array)


def test_an_ordinary_image_has_limits(tmp_path: Path) -> None:
    Image.fromarray(values(3, "uint8")).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: it has 101×83 pixels by its header, more than the limit of 100 "):
        open_reader(tmp_path / "a.png", max_pixels=100)
    with pytest.raises(ImageError, match=r"a\.png: it has a single level"):
        open_reader(tmp_path / "a.png", level=1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 7])
def test_numpy_files(tmp_path: Path, channels: int, dtype: str) -> None:
    array = values(channels, dtype)
    np.save(tmp_path / "a.npy", array if channels > 1 else array[..., 0])
    reader = open_reader(tmp_path / "a.npy")
    assert isinstance(reader.reader, ArrayReader)
    assert_rows(reader, array)


@pytest.mark.parametrize("channels", [1, 5])
def test_zarr(tmp_path: Path, channels: int) -> None:
    zarr = pytest.importorskip("zarr")
    array = values(channels, "uint16")
    stored = zarr.create_array(str(tmp_path / "a.zarr"), shape=array.shape, chunks=(20, 30, channels), dtype="uint16")
    stored[:] = array
    reader = open_reader(tmp_path / "a.zarr")
    assert_rows(reader, array)
    assert reader.info.preferred_rows == 20


def test_zarr_groups(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    for name in ("0", "1"):
        group.create_array(name, data=values(2, "uint8", seed=int(name)))
    assert_rows(open_reader(tmp_path / "a.zarr"), values(2, "uint8"))
    assert_rows(open_reader(tmp_path / "a.zarr", array="1"), values(2, "uint8", seed=1))
    with pytest.raises(ImageError, match=r"a\.zarr: there is no array '2' in this group; it has 0, 1"):
        open_reader(tmp_path / "a.zarr", array="2")


def test_damaged_zarr_is_a_sentence(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    stored = zarr.create_array(str(tmp_path / "a.zarr"), shape=(HEIGHT, WIDTH), chunks=(20, 30), dtype="uint16")
    stored[:] = values(1, "uint16")[..., 0]
    for chunk in (tmp_path / "a.zarr" / "c" / "0").iterdir():
        chunk.write_bytes(b"no chunk")
    with pytest.raises(ImageError, match=r"a\.zarr: it is damaged"):
        open_reader(tmp_path / "a.zarr").read_rows(0, 10)
    (tmp_path / "a.zarr" / "zarr.json").write_text("{")
    with pytest.raises(ImageError, match=r"a\.zarr: it is no Zarr array, or a damaged one"):
        open_reader(tmp_path / "a.zarr")


def test_a_range_is_kept_beside_the_values(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values(5, "uint16"))
    reader = open_reader(tmp_path / "a.npy", channels=[4, 0, 2], value_range=(-5, 4095))
    assert_rows(reader, values(5, "uint16")[..., [4, 0, 2]])
    assert reader.info.value_range == (-5, 4095)
    assert ChosenReader(reader, None).info.value_range == (-5, 4095)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": -1}, "level=-1: must be 0"),
        ({"channels": []}, r"channels=\(\): must be numbers"),
        ({"channels": [0, -1]}, r"channels=\(0, -1\): must be numbers"),
        ({"value_range": (1, 1)}, "value_range=1, 1: must be two numbers, the lower one first"),
        ({"value_range": (0, float("nan"))}, "value_range=0, nan: must be two numbers"),
    ],
)
def test_impossible_numbers_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_reader("none.tif", **options)


def test_channels_are_chosen_in_any_order() -> None:
    reader = ChosenReader(ArrayReader(values(4, "uint8")), [3, 1, 1])
    assert_rows(reader, values(4, "uint8")[..., [3, 1, 1]])
    assert not reader.info.opacity
    with pytest.raises(ImageError, match="the image: there is no channel 4, it has 0 to 3"):
        ChosenReader(ArrayReader(values(4, "uint8")), [4])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tif", b"II*\0\x08\0\0\0", "a.tif: it is no TIFF, or a damaged one"),
        ("a.npy", b"\x93NUMPY\x01\0\x10", "a.npy: it is no NumPy file, or a damaged one"),
        ("a.png", b"\x89PNG\r\n\x1a\nno", "a.png: it is not an image that can be read"),
        ("a.txt", b"words", "a.txt: it is not an image that can be read"),
        ("a.npy", b"", "a.npy: it is not an image that can be read"),
    ],
)
def test_what_is_no_image_is_a_sentence(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError) as caught:
        open_reader(tmp_path / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.tif: no such file or directory"):
        open_reader(tmp_path / "none.tif")
    with pytest.raises(ImageError, match="it is a folder, and no Zarr array"):
        open_reader(tmp_path)


def test_arrays_have_two_or_three_axes() -> None:
    with pytest.raises(ImageError, match=r"the image: expected an array .*got \(2, 3, 4, 5\)"):
        ArrayReader(np.zeros((2, 3, 4, 5)))
    with pytest.raises(ImageError, match=r"its mask has shape \(3, 2\), the image \(2, 3\)"):
        ArrayReader(np.zeros((2, 3)), valid=np.ones((3, 2), dtype=np.bool_))


@pytest.mark.parametrize(
    ("package", "name", "extra"), [("zarr", "a.zarr.zip", "zarr"), ("openslide", "a.svs", "slides")]
)
def test_what_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ImageError, match=rf"{name}: .* needs {package}: pip install 'vision-longformer\[{extra}\]'"):
        open_reader(tmp_path / name)


def test_a_plain_tiff_needs_no_rasterio(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values(3, "uint8"), photometric="rgb")
    assert isinstance(open_reader(tmp_path / "a.tif").reader, TiffReader)


def test_a_tiff_that_nothing_reads_says_why(tmp_path: Path) -> None:
    pages = np.stack([values(5, "uint8")] * 3)
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageError, match=r"a\.tif: it is no single picture .*S=5\), and as a whole it is not an image"):
        open_reader(tmp_path / "a.tif")


def test_a_tiff_that_is_decoded_as_a_whole_has_limits(tmp_path: Path) -> None:
    Image.fromarray(values(4, "uint8"), mode="CMYK").save(tmp_path / "a.tif")
    assert isinstance(open_reader(tmp_path / "a.tif").reader, PillowReader)
    with pytest.raises(
        ImageError, match=r"a\.tif: its colours are separated, .*, and as a whole it has 101×83 pixels by"
    ):
        open_reader(tmp_path / "a.tif", max_pixels=100)


@pytest.mark.parametrize(
    ("channels", "dtype", "value"), [(1, "uint8", "7"), (3, "uint8", "0"), (2, "float32", "-3.4e38")]
)
def test_pixels_without_data_are_not_valid_without_rasterio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, dtype: str, value: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    array = values(channels, dtype)
    array[np.random.default_rng(1).random(array.shape) < 0.1] = float(value)
    missing = (array == array.dtype.type(value)).any(axis=2)
    tags = [(42113, "s", 0, value, True)]
    stored = array if channels > 1 else array[..., 0]
    layout: dict[str, Any] = {"planarconfig": "contig"} if channels > 1 else {}
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", extratags=tags, **layout)
    reader = open_reader(tmp_path / "a.tif")
    assert isinstance(reader.reader, TiffReader)
    seen = reader.read_rows(0, HEIGHT).seen
    assert seen is not None
    assert np.array_equal(seen, ~missing)


@pytest.mark.parametrize("value", ["", "none", "-9999"])
def test_a_value_that_no_pixel_has_leaves_all_valid(tmp_path: Path, value: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values(1, "uint8"), extratags=[(42113, "s", 0, value, True)])
    assert TiffReader(tmp_path / "a.tif").read_rows(0, HEIGHT).valid is None


@pytest.mark.parametrize("rasterio", [True, False])
def test_a_palette_heeds_a_value_for_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, rasterio: bool
) -> None:
    if rasterio:
        pytest.importorskip("rasterio")
    else:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    picture = Image.fromarray(values(3, "uint8")).quantize(16)
    picture.save(tmp_path / "a.tif", tiffinfo={42113: "7"})
    reader = open_reader(tmp_path / "a.tif")
    assert isinstance(reader.reader, TiffReader) is not rasterio
    rows = reader.read_rows(0, HEIGHT)
    assert rows.valid is not None
    np.testing.assert_array_equal(rows.valid, np.asarray(picture) != 7)
    np.testing.assert_array_equal(rows.values, np.asarray(picture.convert("RGB")))


def test_a_kind_that_only_pillow_reads_has_a_note_on_missing_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    Image.fromarray(values(4, "uint8"), mode="CMYK").save(tmp_path / "a.tif", tiffinfo={42113: "7"})
    assert open_reader(tmp_path / "a.tif").info.note == (
        "what it says of missing pixels is not heeded without rasterio: pip install 'vision-longformer[geo]'"
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_zarr_in_a_zip_file(tmp_path: Path, channels: int) -> None:
    zarr = pytest.importorskip("zarr")
    array = values(channels, "uint16")
    with zarr.storage.ZipStore(tmp_path / "a.zarr.zip", mode="w") as store:
        zarr.create_array(store, shape=array.shape, chunks=(20, 30, channels), dtype="uint16")[:] = array
    reader = open_reader(tmp_path / "a.zarr.zip")
    assert_rows(reader, array)
    reader.close()


def test_a_zip_file_that_holds_no_array_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    (tmp_path / "a.zarr.zip").write_bytes(b"PK, or not")
    with pytest.raises(ImageError, match=r"a\.zarr\.zip: it is no Zarr array, or a damaged one"):
        open_reader(tmp_path / "a.zarr.zip")


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": ">u2", "zarr_format": 2, "order": "F", "chunks": (16, 16, 3)},
        {"dtype": "u2", "chunks": (8, 8, 3), "shards": (16, 16, 3)},
        {"dtype": "u2", "chunks": (16, 16, 3), "fill_value": 7},
        {"dtype": "f4", "chunks": (16, 16, 3), "fill_value": np.nan},
    ],
    ids=["big-endian in Fortran's order", "shards", "a value for what is not there", "NaN for what is not there"],
)
def test_zarr_of_any_layout(tmp_path: Path, options: dict[str, Any]) -> None:
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(40, 50, 3), **options)
    stored = np.random.default_rng(0).random((40, 50, 3))
    stored = stored.astype("f4") if options["dtype"] == "f4" else (stored * 65535).round().astype("u2")
    array[:16] = stored[:16]
    expected = np.full(stored.shape, options.get("fill_value", 0), stored.dtype)
    expected[:16] = stored[:16]
    there = ~np.isnan(expected.astype(float)).any(axis=2)
    pixels = read_pixels(tmp_path / "a.zarr")
    np.testing.assert_array_equal(pixels.valid.numpy(), there)
    scale = 1 if stored.dtype == np.float32 else 65535
    np.testing.assert_allclose(pixels.values.numpy(), np.where(there[..., None], expected / scale, 0), atol=1e-6)
