"""TIFF files give the rows they hold, whatever their layout."""

from __future__ import annotations

import itertools
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from vision_longformer.images import ImageError, PillowReader, Reader, open_reader, read_pixels
from vision_longformer.images.reader import Array
from vision_longformer.images.tiff import TiffReader

HEIGHT, WIDTH = 83, 101


def values(channels: int, dtype: str, *, seed: int = 0) -> Array:
    generator = np.random.default_rng(seed)
    if dtype == "float32":
        return generator.random((HEIGHT, WIDTH, channels), dtype=np.float32)
    return generator.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, channels), dtype=dtype, endpoint=True)


def assert_rows(reader: Reader, expected: Array) -> None:
    """Hold the rows of any bands, in order and out of it, to the whole array."""
    assert (reader.info.height, reader.info.width, reader.info.channels) == expected.shape
    assert reader.info.dtype == expected.dtype
    for step in (1, 7, 16, 40, HEIGHT):
        bands = [reader.read_rows(top, min(top + step, HEIGHT)) for top in range(0, HEIGHT, step)]
        assert np.array_equal(np.concatenate([band.values for band in bands]), expected)
    for top, bottom in ((50, 60), (10, 20), (15, 83), (0, 1)):
        assert np.array_equal(reader.read_rows(top, bottom).values, expected[top:bottom])


LAYOUTS: list[dict[str, Any]] = [
    {},
    {"rowsperstrip": 10},
    {"rowsperstrip": 10, "compression": "zlib", "predictor": True},
    {"tile": (32, 48)},
    {"tile": (32, 48), "compression": "zlib"},
    {"tile": (16, 16), "bigtiff": True},
    {"rowsperstrip": 7, "byteorder": ">"},
    {"byteorder": ">"},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (3, "uint8"), (3, "uint16"), (4, "float32")])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_every_layout(tmp_path: Path, layout: dict[str, Any], channels: int, dtype: str, planar: str) -> None:
    if channels == 1 and planar == "separate":
        return
    if dtype == "float32" and layout.get("predictor"):
        layout = {**layout, "predictor": False}  # that of floats needs imagecodecs
    array = values(channels, dtype)
    stored = np.moveaxis(array, 2, 0) if planar == "separate" else array
    options = {"planarconfig": planar} if channels > 1 else {}
    photometric = "rgb" if channels > 1 else "minisblack"
    tifffile.imwrite(
        tmp_path / "a.tif", stored if channels > 1 else array[..., 0], photometric=photometric, **options, **layout
    )
    assert_rows(open_reader(tmp_path / "a.tif"), array)


@pytest.mark.parametrize("compression", ["lzw", "jpeg", "zstd", "lerc"])
def test_compressions_of_imagecodecs(tmp_path: Path, compression: str) -> None:
    pytest.importorskip("imagecodecs")
    array = values(3, "uint8")
    tifffile.imwrite(tmp_path / "a.tif", array, tile=(32, 48), compression=compression, photometric="rgb")
    assert_rows(open_reader(tmp_path / "a.tif"), tifffile.imread(tmp_path / "a.tif"))


def test_channels_that_are_pages_of_their_own(tmp_path: Path) -> None:
    array = values(5, "uint16")
    planes = np.moveaxis(array, 2, 0)
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, metadata={"axes": "CYX"}, tile=(32, 32), photometric="minisblack")
    reader = open_reader(tmp_path / "a.ome.tif")
    assert_rows(reader, array)
    assert_rows(open_reader(tmp_path / "a.ome.tif", channels=[4, 0]), array[..., [4, 0]])


def test_a_level_of_a_pyramid(tmp_path: Path) -> None:
    array = values(3, "uint8")
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        options: dict[str, Any] = {"photometric": "rgb", "tile": (16, 16)}
        file.write(np.repeat(np.repeat(array, 2, 0), 2, 1), subifds=1, metadata={"axes": "YXS"}, **options)
        file.write(array, subfiletype=1, **options)
    assert_rows(open_reader(tmp_path / "a.ome.tif", level=1), array)
    with pytest.raises(ImageError, match=r"a\.ome\.tif: it has 2 levels of resolution, and no number 2"):
        open_reader(tmp_path / "a.ome.tif", level=2)


def test_white_may_be_zero(tmp_path: Path) -> None:
    array = values(1, "uint8")
    tifffile.imwrite(tmp_path / "a.tif", array[..., 0], photometric="miniswhite")
    assert_rows(TiffReader(tmp_path / "a.tif"), 255 - array)


def test_white_may_not_be_zero_where_values_have_no_range(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values(1, "float32")[..., 0], photometric="miniswhite")
    with pytest.raises(ImageError, match=r"a\.tif: zero is white in it, which is not read for values of type float32"):
        TiffReader(tmp_path / "a.tif").read_rows(0, 1)


def write_bits(path: Path, stored: NDArray[np.int64], bits: int, *, photometric: int = 1) -> None:
    """Write (H, W) whole numbers of 4 or 12 bits, packed without a library's help."""
    flags = (stored[..., None] >> np.arange(bits)[::-1]) & 1  # (H, W, bits), the highest first
    data = np.packbits(flags.reshape(HEIGHT, -1).astype(np.uint8), axis=1).tobytes()
    entries = {256: WIDTH, 257: HEIGHT, 258: bits, 259: 1, 262: photometric, 273: 200, 277: 1, 278: HEIGHT}
    tags = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in {**entries, 279: len(data)}.items()]
    start = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + b"".join(tags) + bytes(4)
    path.write_bytes(start.ljust(200, b"\0") + data)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(("bits", "dtype"), [(4, "uint8"), (12, "uint16")])
def test_values_of_a_few_bits_have_the_whole_range(tmp_path: Path, bits: int, dtype: str, photometric: int) -> None:
    pytest.importorskip("imagecodecs")
    stored = np.random.default_rng(0).integers(0, 2**bits, (HEIGHT, WIDTH))
    write_bits(tmp_path / "a.tif", stored, bits, photometric=photometric)
    reader = open_reader(tmp_path / "a.tif")
    shares = stored / (2**bits - 1)
    expected = (shares if photometric else 1 - shares) * np.iinfo(dtype).max
    assert_rows(reader, expected.round().astype(dtype)[..., None])


@pytest.mark.parametrize("bits", [4, 12])
def test_values_of_a_few_bits_have_the_whole_range_as_an_image(tmp_path: Path, bits: int) -> None:
    stored = np.random.default_rng(0).integers(0, 2**bits, (HEIGHT, WIDTH))
    write_bits(tmp_path / "a.tif", stored, bits)
    found = read_pixels(tmp_path / "a.tif", channels=1).values[..., 0].numpy()
    np.testing.assert_allclose(found, stored / (2**bits - 1), atol=1e-5)


@pytest.mark.parametrize("compression", [None, "zlib", "jpeg"])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 16}, {"tile": (32, 48)}], ids=str)
def test_luminance_and_chrominance_become_colours(
    tmp_path: Path, compression: str | None, layout: dict[str, Any]
) -> None:
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[:40], colours[40:] = (220, 30, 60), (20, 90, 200)
    stored = np.asarray(Image.fromarray(colours).convert("YCbCr"))
    if compression == "jpeg":
        pytest.importorskip("imagecodecs")
    options: dict[str, Any] = {"compression": compression, "subsampling": (1, 1), **layout}
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="ycbcr", **options)
    reader = open_reader(tmp_path / "a.tif")
    assert isinstance(reader.reader, TiffReader if compression == "jpeg" else PillowReader)
    found = reader.read_rows(0, HEIGHT).values.astype(int)
    assert np.abs(found - colours)[[0, 20, 60]].max() <= 4


@pytest.mark.parametrize(("kind", "opacity"), [("unassalpha", True), ("unspecified", False)])
def test_a_fourth_channel_is_opacity_only_if_the_file_says_so(tmp_path: Path, kind: str, opacity: bool) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values(4, "uint8"), photometric="rgb", extrasamples=[kind])
    assert open_reader(tmp_path / "a.tif").info.opacity is opacity


def test_tiles_that_were_left_out_are_empty(tmp_path: Path) -> None:
    array = values(3, "uint8")
    array[32:64, 48:96] = 0

    tiles = (
        None if (row, column) == (32, 48) else np.ascontiguousarray(pad(array)[row : row + 32, column : column + 48])
        for row, column in itertools.product(range(0, HEIGHT, 32), range(0, WIDTH, 48))
    )
    tifffile.imwrite(tmp_path / "a.tif", tiles, shape=array.shape, dtype="uint8", tile=(32, 48), photometric="rgb")
    assert_rows(open_reader(tmp_path / "a.tif"), array)


def pad(array: Array) -> Array:
    return np.pad(array, ((0, -HEIGHT % 32), (0, -WIDTH % 48), (0, 0)))


def test_only_the_tiles_of_a_band_are_decoded_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vision_longformer.images import tiff

    tifffile.imwrite(tmp_path / "a.tif", values(3, "uint8"), tile=(32, 48), photometric="rgb")
    decoded: list[int] = []
    decode = tiff._decode

    def counted(page: Any, segment: int) -> tuple[Array, tuple[int, ...]]:
        decoded.append(segment)
        return decode(page, segment)

    monkeypatch.setattr(tiff, "_decode", counted)
    reader = TiffReader(tmp_path / "a.tif")
    reader.read_rows(0, 30)
    assert decoded == [0, 1, 2]
    for top in range(30, 80, 10):
        reader.read_rows(top, top + 10)
    assert decoded == list(range(9))


def test_turned_and_palette_images_are_read_as_a_whole(tmp_path: Path) -> None:
    array = values(3, "uint8")
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    reader = open_reader(tmp_path / "a.tif")
    assert np.array_equal(reader.read_rows(0, WIDTH).values, np.rot90(array, -1))


@pytest.mark.parametrize(("axes", "pages"), [("TYX", 4), ("ZYX", 3)])
def test_stacks_are_refused_by_name(tmp_path: Path, axes: str, pages: int) -> None:
    array = np.zeros((pages, 20, 30), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", array, metadata={"axes": axes}, photometric="minisblack")
    with pytest.raises(ImageError, match=rf"a\.ome\.tif: it is no single picture .*{axes[0]}={pages}"):
        TiffReader(tmp_path / "a.ome.tif")


@pytest.mark.parametrize("layout", [LAYOUTS[0], LAYOUTS[2], LAYOUTS[4], LAYOUTS[5]], ids=str)
def test_damaged_files_are_a_sentence_or_give_some_pixels(tmp_path: Path, layout: dict[str, Any]) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values(3, "uint8"), photometric="rgb", **layout)
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    sentences = []
    for number in range(60):
        damaged = bytearray(whole)
        if number % 2:
            damaged = damaged[: int(generator.integers(len(whole)))]
        else:
            start = int(generator.integers(min(len(whole), 1500)))
            damaged[start : start + 4] = generator.bytes(4)
        path.write_bytes(damaged)
        try:
            reader = open_reader(path)
            if reader.info.height * reader.info.width < 10**7:
                reader.read_rows(0, reader.info.height)
        except ImageError as error:
            sentences.append(str(error))
    assert len(sentences) > 20
    assert all(sentence.startswith(f"{path}: ") and "\n" not in sentence for sentence in sentences)


def test_of_a_file_of_very_many_pages_the_first_alone_is_looked_at(tmp_path: Path) -> None:
    """Putting series together from 3,000 pages builds an object for each of them."""
    first = values(3, "uint8")
    tifffile.imwrite(tmp_path / "a.tif", first, photometric="rgb", metadata=None)
    tiny = np.zeros((1, 1), np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif", append=True) as file:
        for _ in range(3000):
            file.write(tiny, photometric="minisblack", metadata=None)
    with closing(open_reader(tmp_path / "a.tif")) as reader:
        assert_rows(reader, first)
        assert "first picture" in reader.info.note
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        built = [0]
        page = type(file.pages[0])
        made = page.__init__

        def counted(self: object, *args: object, **options: object) -> None:
            built[0] += 1
            made(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "__init__", counted)
        open_reader(tmp_path / "a.tif").close()
    assert built[0] < 100
