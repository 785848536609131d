"""What loses depth says so, and nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from vision_longformer.images import read_pixels

HEIGHT, WIDTH = 16, 24


def colours(bits: int) -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 2**bits, (HEIGHT, WIDTH, 3), dtype=np.uint16)


def write_ppm(path: Path, bits: int) -> NDArray[Any]:
    array = colours(bits)
    path.write_bytes(
        b"P6 %d %d %d\n" % (WIDTH, HEIGHT, 2**bits - 1) + array.astype(">u2" if bits > 8 else "u1").tobytes()
    )
    return array


def write_jpeg_2000(path: Path, bits: int) -> NDArray[Any]:
    imagecodecs = pytest.importorskip("imagecodecs")
    array = colours(bits)
    options = {"level": 0, "bitspersample": bits, "codecformat": "jp2" if path.suffix == ".jp2" else "j2k"}
    path.write_bytes(imagecodecs.jpeg2k_encode(array if bits > 8 else array.astype(np.uint8), **options))
    return array


def write_avif(path: Path, bits: int) -> NDArray[Any]:
    imagecodecs = pytest.importorskip("imagecodecs")
    array = np.full((HEIGHT, WIDTH, 3), 2 ** (bits - 1), np.uint16)
    path.write_bytes(imagecodecs.avif_encode(array if bits > 8 else array.astype(np.uint8), bitspersample=bits))
    return array


@pytest.mark.parametrize(
    ("name", "write", "bits"),
    [
        ("a.ppm", write_ppm, 8),
        ("a.ppm", write_ppm, 10),
        ("a.ppm", write_ppm, 16),
        ("a.jp2", write_jpeg_2000, 8),
        ("a.jp2", write_jpeg_2000, 12),
        ("a.j2k", write_jpeg_2000, 16),
        ("a.avif", write_avif, 8),
        ("a.avif", write_avif, 10),
        ("a.avif", write_avif, 12),
    ],
)
def test_colour_is_read_with_all_its_bits_or_a_note(tmp_path: Path, name: str, write: Any, bits: int) -> None:
    if name.endswith("avif") and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    array = write(tmp_path / name, bits)
    pixels = read_pixels(tmp_path / name)
    np.testing.assert_allclose(pixels.values.numpy(), array / (2**bits - 1), atol=1 / 128)
    assert pixels.note == ("" if bits == 8 else f"{bits}-bit values were read with 8 bits")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "a.jp2"])
def test_gray_of_16_bits_keeps_them(tmp_path: Path, name: str) -> None:
    array = colours(16)[..., 0]
    Image.fromarray(array).save(tmp_path / name)
    pixels = read_pixels(tmp_path / name)
    np.testing.assert_allclose(pixels.values[..., 0].numpy(), array / 65535, atol=1e-6)
    assert pixels.note == ""


def test_a_bitmap_of_16_bits_a_pixel_loses_none(tmp_path: Path) -> None:
    head = b"BM" + (54 + 4).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    size = (
        (2).to_bytes(4, "little") + (1).to_bytes(4, "little") + (1).to_bytes(2, "little") + (16).to_bytes(2, "little")
    )
    (tmp_path / "a.bmp").write_bytes(head + size + bytes(24) + b"\xff\x7f\x00\x7c")  # 5 bits a colour
    pixels = read_pixels(tmp_path / "a.bmp")
    assert pixels.values.tolist() == [[[1, 1, 1], [1, 0, 0]]]
    assert pixels.note == ""
