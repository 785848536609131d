from __future__ import annotations

import struct
import tracemalloc
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vision_longformer.images import ImageError, describe_image, open_reader, read_indices, read_pixels, read_rgb

HEIGHT, WIDTH = 5, 7


def noise(*shape: int, high: int = 256, dtype: str = "uint8") -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


# Of the seven passes of an interlaced PNG: the first row and column, and the steps between them.
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png(array: NDArray[Any], *, interlaced: bool = False) -> bytes:
    """Encode an (H, W, C) uint16 array, which Pillow cannot."""
    height, width, channels = array.shape
    passes = [array[top::down, left::across] for top, left, down, across in ADAM7] if interlaced else [array]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for each in passes if each.size for row in each)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, interlaced)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def tiff(array: NDArray[Any], *, deflate: bool = False, extra: bytes = b"") -> bytes:
    """Encode an (H, W, 3 or 4) uint16 array, with the twelve bytes of one more tag, which is 274."""
    height, width, channels = array.shape
    data = bytes(array.astype("<u2").data)
    data = zlib.compress(data) if deflate else data
    tags = {256: width, 257: height, 258: None, 259: 8 if deflate else 1, 262: 2, 273: 256, 277: channels, 278: height}
    tags |= {279: len(data)} | ({338: 2} if channels == 4 else {})  # 338: straight opacity
    tags |= {274: 0} if extra else {}
    bits_at = 8 + 2 + 12 * len(tags) + 4
    entries = {tag: struct.pack("<HHII", tag, 4, 1, value or 0) for tag, value in tags.items()}
    entries[258] = struct.pack("<HHII", 258, 3, channels, bits_at)
    directory = b"".join(extra if tag == 274 else entries[tag] for tag in sorted(entries))
    head: bytes = b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4) + struct.pack("<H", 16) * channels
    return head.ljust(256, b"\0") + bytes(data)


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(tmp_path: Path, orientation: int, name: str) -> None:
    image = Image.fromarray(noise(HEIGHT, WIDTH, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / name, exif=exif)
    with Image.open(tmp_path / name) as stored:
        upright = torch.from_numpy(np.array(ImageOps.exif_transpose(stored)))
    pixels = read_pixels(tmp_path / name)
    assert torch.equal((pixels.values * 255).round().to(torch.uint8), upright)
    assert pixels.original_size == tuple(upright.shape[:2])


def test_16_bit_gray_keeps_all_its_bits(tmp_path: Path) -> None:
    array = noise(HEIGHT, WIDTH, high=65536, dtype="uint16")
    for name in ("x.png", "x.tif"):
        Image.fromarray(array).save(tmp_path / name)
        pixels = read_pixels(tmp_path / name)
        expected = torch.from_numpy(array.astype(np.float32) / 65535)[..., None].expand(-1, -1, 3)
        torch.testing.assert_close(pixels.values, expected)
        assert pixels.note == ""


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("kind", ["png", "tiff", "deflated tiff"])
def test_16_bit_colour_keeps_all_its_bits(tmp_path: Path, channels: int, kind: str) -> None:
    array = noise(HEIGHT, WIDTH, channels, high=65536, dtype="uint16") | 1  # opacity is never 0
    (tmp_path / "x").write_bytes(png(array) if kind == "png" else tiff(array, deflate=kind != "tiff"))
    pixels = read_pixels(tmp_path / "x")
    torch.testing.assert_close(pixels.values, torch.from_numpy(array[..., :3].astype(np.float32) / 65535))
    assert pixels.valid.all()
    assert pixels.note == ""


@pytest.mark.parametrize("interlaced", [False, True])
def test_16_bit_gray_with_opacity_keeps_all_its_bits(tmp_path: Path, interlaced: bool) -> None:
    """A pixel is missing only where its opacity is 0, and not where the upper half of it is."""
    array = noise(HEIGHT, WIDTH, 2, high=65536, dtype="uint16")
    array[0, :3, 1] = 0, 1, 255
    (tmp_path / "x.png").write_bytes(png(array, interlaced=interlaced))
    pixels = read_pixels(tmp_path / "x.png")
    assert pixels.note == ""
    assert pixels.valid.logical_not().nonzero().tolist() == [[0, 0]]
    expected = torch.from_numpy(array[..., 0].astype(np.float32)) / 65535
    expected[0, 0] = 0
    torch.testing.assert_close(pixels.values[..., 0], expected)


def test_16_bit_gray_with_opacity_that_is_open_already_says_that_bits_are_lost(tmp_path: Path) -> None:
    array = noise(HEIGHT, WIDTH, 2, high=65536, dtype="uint16") | 256
    (tmp_path / "x.png").write_bytes(png(array))
    with Image.open(tmp_path / "x.png") as image:
        pixels = read_pixels(image)
    torch.testing.assert_close(pixels.values[..., 0], torch.from_numpy(array[..., 0] >> 8).float() / 255)
    assert "8 bits" in pixels.note


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_common_mode_becomes_rgb(mode: str) -> None:
    image = Image.fromarray(noise(HEIGHT, WIDTH, 3)).convert(mode)
    expected = torch.from_numpy(np.array(image.convert("RGB"))).float() / 255
    torch.testing.assert_close(read_pixels(image).values, expected)


def test_inks_of_a_jpeg_are_the_right_way_round(tmp_path: Path) -> None:
    """Adobe's programs, and so Pillow, store them inverted, and say so."""
    Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=100)
    red = torch.tensor([1.0, 0.0, 0.0]).expand(HEIGHT, WIDTH, 3)
    torch.testing.assert_close(read_pixels(tmp_path / "x.jpg").values, red, atol=0.03, rtol=0)


def test_fully_transparent_pixels_are_not_valid_and_others_keep_their_colour() -> None:
    array = noise(HEIGHT, WIDTH, 4)
    array[..., 3] = 128
    array[1, 2, 3] = 0
    pixels = read_pixels(Image.fromarray(array))
    assert pixels.valid.logical_not().nonzero().tolist() == [[1, 2]]
    assert pixels.values[1, 2].tolist() == [0, 0, 0]
    torch.testing.assert_close(pixels.values[0], torch.from_numpy(array[0, :, :3]).float() / 255)


def test_a_transparent_palette_colour_is_not_valid(tmp_path: Path) -> None:
    image = Image.fromarray(noise(HEIGHT, WIDTH, high=3), mode=None).convert("P")
    image.save(tmp_path / "x.png", transparency=0)
    assert torch.equal(read_pixels(tmp_path / "x.png").valid, torch.from_numpy(np.array(image) != 0))


def test_an_image_without_any_valid_pixel_is_refused() -> None:
    with pytest.raises(ImageError, match="all of its pixels are transparent"):
        read_pixels(np.zeros((HEIGHT, WIDTH, 4), np.uint8))


def test_arrays_are_read_by_their_type() -> None:
    half = np.full((HEIGHT, WIDTH, 3), 0.5)
    assert read_pixels(half).values.unique().tolist() == [0.5]
    assert read_pixels(half > 0).values.unique().tolist() == [1]
    assert read_pixels((half * 510).astype(np.uint8)).values.unique().tolist() == [1]
    assert read_pixels((half * 131070).astype(">u2")).values.unique().tolist() == [1]


def test_missing_values_are_not_valid_and_the_array_is_left_alone() -> None:
    array = np.full((HEIGHT, WIDTH), 0.25, np.float32)
    array[3, 4] = np.nan
    before = array.copy()
    pixels = read_pixels(array)
    assert pixels.valid.logical_not().nonzero().tolist() == [[3, 4]]
    assert not pixels.values.isnan().any()
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("value", [-0.1, 1.5, np.inf])
def test_floats_outside_their_range_are_refused(value: float) -> None:
    with pytest.raises(ImageError, match=r"no defined range: scale them to \[0, 1\]"):
        read_pixels(np.full((HEIGHT, WIDTH), value))


def test_32_bit_values_are_16_bit_ones_or_refused() -> None:
    assert read_pixels(Image.fromarray(np.full((HEIGHT, WIDTH), 65535, np.int32))).values.unique().tolist() == [1]
    with pytest.raises(ImageError, match="no defined range"):
        read_pixels(Image.fromarray(np.full((HEIGHT, WIDTH), 65536, np.int32)))


@pytest.mark.parametrize("dtype", ["complex64", "S1", "datetime64[s]"])
def test_values_that_are_no_real_numbers_are_refused(dtype: str) -> None:
    with pytest.raises(ImageError, match=r"the image: values of type .* are no real numbers"):
        read_pixels(np.zeros((HEIGHT, WIDTH, 3), dtype))


def test_models_of_one_or_more_channels_get_them() -> None:
    colour = noise(HEIGHT, WIDTH, 3)
    assert read_pixels(colour, channels=1).values.shape == (HEIGHT, WIDTH, 1)
    assert read_pixels(noise(HEIGHT, WIDTH, 6), channels=6).values.shape == (HEIGHT, WIDTH, 6)
    with pytest.raises(ImageError, match=r"3 channels, and the model takes 5 \(arrays are height, width, channels\)"):
        read_pixels(colour, channels=5)


def test_large_images_shrink_to_a_longest_side() -> None:
    pixels = read_pixels(noise(40, 30, 3), max_side=20)
    assert pixels.values.shape == (20, 15, 3)
    assert pixels.valid.shape == (20, 15)
    assert pixels.original_size == (40, 30)
    assert read_pixels(noise(HEIGHT, WIDTH, 3), max_side=20).values.shape == (HEIGHT, WIDTH, 3)


def test_shrinking_takes_nothing_from_missing_pixels() -> None:
    array = np.full((40, 30, 4), 200, np.uint8)
    array[:, :13] = 0  # black, and transparent
    pixels = read_pixels(array, max_side=10)
    kept = pixels.values[pixels.valid]
    torch.testing.assert_close(kept, torch.full_like(kept, 200 / 255))
    assert pixels.valid.any()
    assert not pixels.valid.all()


def test_too_large_files_are_refused_by_their_header(tmp_path: Path) -> None:
    path = tmp_path / "x.bmp"
    Image.new("RGB", (2, 1)).save(path)
    path.write_bytes(path.read_bytes().replace(struct.pack("<II", 2, 1), struct.pack("<II", 90_000, 90_000)))
    with pytest.raises(ImageError, match=r"x.bmp: it has 90000×90000 pixels by its header, more than the limit of 5"):
        read_pixels(path)


def test_only_our_own_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise(HEIGHT, WIDTH, 3)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    assert read_pixels(tmp_path / "x.png").original_size == (HEIGHT, WIDTH)
    assert Image.MAX_IMAGE_PIXELS == 3


@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (3, "uint8"), (4, "uint8"), (3, "uint16")])
def test_a_large_image_is_decoded_in_little_more_than_its_pixels(tmp_path: Path, channels: int, dtype: str) -> None:
    """NumPy's part of it; what Pillow holds beside that is in `info.decoding_bytes`."""
    array = np.zeros((4000, 3000, channels), dtype)
    array[1000:2000] = np.arange(channels) * 7 + 300 * (dtype == "uint16")
    if dtype == "uint16":
        (tmp_path / "x.png").write_bytes(png(array))
    else:
        Image.fromarray(array if channels > 1 else array[..., 0]).save(tmp_path / "x.png", compress_level=1)
    with closing(open_reader(tmp_path / "x.png")) as reader:
        assert reader.info.decoding_bytes == (1 if channels == 1 else 4)
        tracemalloc.start()
        values = reader.read_rows(0, 4000).values
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_array_equal(values, array)
    assert peak < array.nbytes * (1.8 if dtype == "uint16" else 1.5)


def test_broken_files_are_named_with_the_reason(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    Image.fromarray(noise(64, 64, 3)).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:900])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.tif").touch()
    (tmp_path / "cut16.png").write_bytes(png(noise(50, 50, 3, dtype="uint16"))[:300])
    for name, reason in {
        "cut.jpg": "cut short",
        "text.png": "not an image",
        "empty.tif": "not an image",
        "cut16.png": "damaged",
        "none.png": "no such file",
    }.items():
        with pytest.raises(ImageError, match=rf"{name}: .*{reason}"):
            read_pixels(tmp_path / name)


def test_an_opened_image_that_proves_broken_is_reported_too(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(noise(64, 64, 3)).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with Image.open(path) as image, pytest.raises(ImageError, match="the image: it is damaged"):
        read_pixels(image)


def test_only_the_first_page_is_read_and_the_note_says_so(tmp_path: Path) -> None:
    first, second = (Image.fromarray(np.full((HEIGHT, WIDTH), value, np.uint8)) for value in (255, 0))
    first.save(tmp_path / "x.tif", save_all=True, append_images=[second])
    pixels = read_pixels(tmp_path / "x.tif")
    assert pixels.values.unique().tolist() == [1]
    assert "first" in pixels.note


@pytest.mark.parametrize("kind", ["png", "tif"])  # Pillow turns TIFF files itself
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_can_be_read_as_they_are_stored(tmp_path: Path, orientation: int, kind: str) -> None:
    image, path = Image.fromarray(noise(HEIGHT, WIDTH, 3)), tmp_path / f"x.{kind}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    np.testing.assert_array_equal(np.asarray(read_rgb(path, upright=False)), np.asarray(image))
    image.save(tmp_path / "upright.png", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "upright.png"))
    np.testing.assert_array_equal(np.asarray(read_rgb(path)), np.asarray(upright))
    assert describe_image(path, upright=False).size == (HEIGHT, WIDTH)
    assert describe_image(path).size == (upright.height, upright.width)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_indices_are_read_as_they_are_stored(tmp_path: Path, orientation: int) -> None:
    values = noise(HEIGHT, WIDTH)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("png", "tif"):
        Image.fromarray(values).save(tmp_path / f"x.{kind}", exif=exif)
        np.testing.assert_array_equal(read_indices(tmp_path / f"x.{kind}"), values)


BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, DOUBLE = 1, 2, 3, 4, 5, 7, 12  # types of TIFF's values


def exif_of(kind: int, count: int, data: bytes) -> bytes:
    """An EXIF block that says nothing but an orientation, of any type."""
    value = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", 26) + data
    return b"Exif\0\0II*\0" + struct.pack("<IHHHI", 8, 1, 0x0112, kind, count) + value[:4] + bytes(4) + value[4:]


@pytest.mark.parametrize(
    ("kind", "count", "data", "orientation"),
    [
        (SHORT, 1, b"\6\0", 6),
        (BYTE, 1, b"\6", 6),
        (LONG, 1, b"\6\0\0\0", 6),
        (SHORT, 1, b"\0\0", 1),
        (SHORT, 1, b"\x09\0", 1),
        (SHORT, 2, b"\6\0\1\0", 6),
        (SHORT, 0, b"", 1),
        (ASCII, 2, b"6\0", 1),
        (BYTE, 2, b"\6\1", 6),
        (RATIONAL, 1, struct.pack("<II", 6, 0), 1),
        (DOUBLE, 1, struct.pack("<d", float("nan")), 1),
        (99, 1, b"\6\0", 1),
    ],
)
@pytest.mark.parametrize("name", ["x.png", "x.webp", "x.jpg", "x.tif"])
def test_an_orientation_may_be_of_any_type_and_one_that_is_none_is_upright(
    tmp_path: Path, name: str, kind: int, count: int, data: bytes, orientation: int
) -> None:
    array, path = noise(HEIGHT, WIDTH, 3), tmp_path / name
    if name == "x.tif":
        path.write_bytes(tiff(array.astype(np.uint16) * 257, extra=exif_of(kind, count, data)[16:28]))
    else:
        options: dict[str, Any] = {"lossless": True} if name == "x.webp" else {}
        Image.fromarray(array).save(path, exif=exif_of(kind, count, data), **options)
    turned = np.rot90(array, -1) if orientation == 6 else array
    for upright, expected in {True: turned, False: array}.items():
        assert describe_image(path, upright=upright).size == expected.shape[:2]
        found = np.asarray(read_rgb(path, upright=upright))
        assert found.shape == expected.shape
        if name != "x.jpg":
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("read", [describe_image, read_indices, read_rgb])
def test_files_that_are_no_images_are_named_whatever_is_asked_of_them(tmp_path: Path, read: Any) -> None:
    (tmp_path / "x.png").write_text("no image")
    with pytest.raises(ImageError, match=r"/x\.png: it is not an image that can be read$"):
        read(tmp_path / "x.png")
    with pytest.raises(ImageError, match=r"/y\.png: no such file or directory$"):
        read(tmp_path / "y.png")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("palette", [False, True])
def test_indices_are_the_numbers_that_a_file_stores_at_any_depth(tmp_path: Path, bits: int, palette: bool) -> None:
    if palette and bits == 16:
        return
    values = noise(HEIGHT, WIDTH, high=2**bits, dtype="uint16")
    packed = np.unpackbits(values[..., None].astype(">u2").view(np.uint8), axis=-1)[..., 16 - bits :]
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in packed.reshape(HEIGHT, -1))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, 3 if palette else 0, 0, 0, 0)
    colours = [(b"PLTE", bytes(range(255, 255 - 2**bits, -1)) * 3)] if palette else []
    chunks = [(b"IHDR", header), *colours, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    (tmp_path / "x.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    np.testing.assert_array_equal(read_indices(tmp_path / "x.png"), values)


def test_indices_of_large_or_coloured_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(noise(HEIGHT, WIDTH)).save(tmp_path / "x.png")
    with pytest.raises(ImageError, match=r"/x\.png: it has 7×5 pixels by its header, more than the limit of 34 \(max"):
        read_indices(tmp_path / "x.png", max_pixels=34)
    Image.fromarray(noise(HEIGHT, WIDTH, 3)).save(tmp_path / "y.png")
    with pytest.raises(ImageError, match=r"/y\.png: has several channels or fractions \(RGB\)"):
        read_indices(tmp_path / "y.png")
