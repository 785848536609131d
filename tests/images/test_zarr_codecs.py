"""Chunks of Zarr arrays become no larger than their values, whatever their codec."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vision_longformer.images import ImageError, read_pixels

zarr = pytest.importorskip("zarr")
numcodecs = pytest.importorskip("numcodecs")

SIDE = 1000  # of a chunk, whose compressed bytes may then be many
BOMB = bytes(40_000_000)
REFUSED = r"a\.zarr: .*a chunk of it becomes more than 1,165,536 bytes, and its values take fewer"
V2 = {
    "zlib": numcodecs.Zlib(9),
    "gzip": numcodecs.GZip(9),
    "bz2": numcodecs.BZ2(9),
    "lzma": numcodecs.LZMA(preset=0),
    "lz4": numcodecs.LZ4(),
    "zstd": numcodecs.Zstd(1),
    "blosc": numcodecs.Blosc("zstd", 1),
}


def picture() -> Any:
    return np.random.default_rng(0).integers(0, 255, (SIDE, SIDE)).astype(np.uint8)


def stored(path: Path, pixels: Any, **options: Any) -> Path:
    """Write an array of one chunk and return the file of it."""
    array = zarr.create_array(str(path), shape=pixels.shape, dtype=pixels.dtype, **options)
    array[:] = pixels
    (chunk,) = [file for file in path.rglob("*") if file.is_file() and not file.name.startswith((".z", "zarr"))]
    return chunk


def zstd_without_size(count: int) -> bytes:
    """Return a frame of Zstandard's that does not say its size, of 127 KB of zeros in each block."""
    block = (127 * 1024 << 3 | 2).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\x00\x58" + block * count + (1 | 2).to_bytes(3, "little") + b"\0"


@pytest.mark.parametrize("name", V2)
def test_a_chunk_of_any_codec_is_read_and_one_that_becomes_larger_is_not_inflated(tmp_path: Path, name: str) -> None:
    pixels = picture()
    options: dict[str, Any] = {"chunks": (SIDE, SIDE), "zarr_format": 2, "compressors": V2[name]}
    chunk = stored(tmp_path / "a.zarr", pixels, **options)
    found = read_pixels(tmp_path / "a.zarr").values[..., 0].numpy()
    np.testing.assert_allclose(found, pixels / 255, atol=1e-6)
    chunk.write_bytes(bytes(V2[name].encode(BOMB)))
    tracemalloc.start()
    with pytest.raises(ImageError, match=REFUSED):
        read_pixels(tmp_path / "a.zarr")
    assert tracemalloc.get_traced_memory()[1] < len(BOMB) / 3
    tracemalloc.stop()


@pytest.mark.parametrize("shards", [None, (2 * SIDE, SIDE)])
@pytest.mark.parametrize("codec", [zarr.codecs.GzipCodec(), zarr.codecs.ZstdCodec(), zarr.codecs.BloscCodec()])
def test_chunks_of_the_third_version_and_of_shards(tmp_path: Path, codec: Any, shards: tuple[int, int] | None) -> None:
    pixels = np.concatenate([picture(), picture()])[: SIDE * (2 if shards else 1)]
    chunk = stored(tmp_path / "a.zarr", pixels, chunks=(SIDE, SIDE), shards=shards, compressors=codec)
    found = read_pixels(tmp_path / "a.zarr").values[..., 0].numpy()
    np.testing.assert_allclose(found, pixels / 255, atol=1e-6)
    packed = {"GzipCodec": V2["gzip"], "ZstdCodec": V2["zstd"], "BloscCodec": V2["blosc"]}[type(codec).__name__]
    bomb = bytes(packed.encode(BOMB))
    if shards:
        index = struct.pack("<4Q", 0, len(bomb), 2**64 - 1, 2**64 - 1)
        bomb += index + struct.pack("<I", numcodecs.checksum32.CRC32C.checksum(index))
    chunk.write_bytes(bomb)
    with pytest.raises(ImageError, match=REFUSED):
        read_pixels(tmp_path / "a.zarr")


def test_a_frame_that_does_not_say_its_size_is_bounded_by_its_blocks(tmp_path: Path) -> None:
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    chunk = stored(tmp_path / "a.zarr", pixels + 1, chunks=(SIDE, SIDE), zarr_format=2, compressors=V2["zstd"])
    whole = numcodecs.zstd.decompress(zstd_without_size(7))
    assert len(whole) == 7 * 127 * 1024 < SIDE * SIDE
    chunk.write_bytes(zstd_without_size(300))
    with pytest.raises(ImageError, match=REFUSED):
        read_pixels(tmp_path / "a.zarr")
