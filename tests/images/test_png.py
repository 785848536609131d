"""What PNG says beside its pixels: which of them are transparent, and metadata that may be junk."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vision_longformer.images import ImageError, describe_image, read_pixels, read_rgb
from vision_longformer.images.pillow import PillowReader

HEIGHT, WIDTH = 9, 13
Chunk = tuple[bytes, bytes]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write(path: Path, values: NDArray[Any], bits: int, *before: Chunk, after: tuple[Chunk, ...] = ()) -> None:
    """Write (H, W, 1 or 3) values of so many bits, and chunks before and after them."""
    height, width, channels = values.shape
    packed = np.unpackbits(values[..., None].astype(">u2").view(np.uint8), axis=-1)[..., 16 - bits :]
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in packed.reshape(height, -1))
    header = struct.pack(">IIBBBBB", width, height, bits, {1: 0, 3: 2}[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(rows)), *after, (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks))


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize(("channels", "bits"), [(1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (3, 8), (3, 16)])
def test_the_named_colour_is_transparent_and_no_other(tmp_path: Path, channels: int, bits: int) -> None:
    largest = 2**bits - 1
    values = np.random.default_rng(0).integers(0, largest, (HEIGHT, WIDTH, channels), endpoint=True)
    colour = values[2, 3]
    values[4, 5] = colour
    values[0, 0] = colour ^ 1  # as near as can be
    if bits == 16:
        values[0, 1] = colour ^ 256
    write(tmp_path / "a.png", values, bits, (b"tRNS", struct.pack(f">{channels}H", *colour)))
    pixels = read_pixels(tmp_path / "a.png", channels=channels)
    valid = (values != colour).any(axis=2)
    np.testing.assert_array_equal(pixels.valid.numpy(), valid)
    np.testing.assert_allclose(pixels.values.numpy(), np.where(valid[..., None], values / largest, 0), atol=1e-6)
    assert pixels.note == ""


def test_bits_of_the_transparent_colour_beyond_those_of_a_value_do_not_count(tmp_path: Path) -> None:
    write(tmp_path / "a.png", np.arange(16).reshape(4, 4, 1), 4, (b"tRNS", struct.pack(">H", 0xFF07)))
    assert (~read_pixels(tmp_path / "a.png").valid.flatten()).nonzero().tolist() == [[7]]


def test_of_an_opened_image_that_lost_bits_the_note_says_that_no_colour_is_transparent(tmp_path: Path) -> None:
    values = np.array([[[5, 6, 7], [1285, 1542, 1799]]])
    write(tmp_path / "a.png", values, 16, (b"tRNS", struct.pack(">3H", 5, 6, 7)))
    with Image.open(tmp_path / "a.png") as image:
        pixels = read_pixels(image)
    assert pixels.valid.all()
    assert pixels.note == "16-bit values were read with 8 bits; the colour that is transparent in it is not heeded"


def zeros(count: int) -> bytes:
    return zlib.compress(bytes(count))


JUNK = {
    "exif": (b"eXIf", b"junk"),
    "text": (b"tEXt", b"Comment\0" + b"x" * 5_000_000),
    "text that inflates": (b"zTXt", b"Comment\0\0" + zeros(80_000_000)),
    "text of Unicode": (b"iTXt", b"Comment\0\1\0\0\0" + zeros(2_000_000)),
    "profile that inflates": (b"iCCP", b"k\0\0" + zeros(80_000_000)),
    "junk profile": (b"iCCP", b"junk"),
    "unknown": (b"juNk", b"junk"),
    "short": (b"pHYs", b"1"),
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
@pytest.mark.parametrize("first", [True, False])
def test_metadata_that_is_junk_or_large_takes_nothing_from_the_pixels(tmp_path: Path, junk: Chunk, first: bool) -> None:
    values = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3))
    path = tmp_path / "a.png"
    if first:
        write(path, values, 8, junk)
    else:
        write(path, values, 8, after=(junk,))
    np.testing.assert_array_equal(np.asarray(read_rgb(path)), values)


def test_metadata_with_a_wrong_checksum_takes_nothing_from_the_pixels(tmp_path: Path) -> None:
    path, values = tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3))
    write(path, values, 8, (b"eXIf", turned(6)))
    path.write_bytes(path.read_bytes().replace(turned(6), turned(5)))
    np.testing.assert_array_equal(np.asarray(read_rgb(path)), values)


def test_junk_in_the_metadata_of_webp_takes_nothing_from_the_pixels(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.webp", lossless=True, exif=b"junkjunk", icc_profile=b"junk", xmp=b"junk")
    np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / "a.webp")), values)


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("kind", ["eXIf", "zTXt", "iTXt"])
def test_how_it_is_turned_is_known_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, where: str
) -> None:
    values = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3))
    block = b"Exif\0\0" + turned(6)
    hexadecimal = f"\nexif\n{len(block):8}\n{block.hex()}\n".encode()
    said = {
        "eXIf": turned(6),
        "zTXt": b"Raw profile type exif\0\0" + zlib.compress(hexadecimal),  # as ImageMagick writes it
        "iTXt": b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>',
    }[kind]
    what = (kind.encode(), said)
    if where == "before":
        write(tmp_path / "a.png", values, 8, what)
    else:
        write(tmp_path / "a.png", values, 8, after=(what,))
    np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / "a.png")), np.rot90(values, -1))
    monkeypatch.setattr(PillowReader, "read_rows", None)
    monkeypatch.setattr(Image.Image, "load", None)
    assert describe_image(tmp_path / "a.png").size == (WIDTH, HEIGHT)


def test_pixels_that_are_damaged_are_still_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write(path, np.random.default_rng(0).integers(0, 256, (64, 64, 3)), 8, (b"eXIf", b"junk"))
    whole = path.read_bytes()
    for damaged in (whole[:500], whole[:20], whole[:8], whole.replace(b"IDAT", b"ID\0T")):
        path.write_bytes(damaged)
        with pytest.raises(ImageError, match=r"a\.png: it is (damaged|not an image)"):
            read_pixels(path)
