"""Chunks of Zarr arrays that become no larger than their values are.

Codecs inflate whatever they are given, by a thousand to one and more. What a chunk becomes is found before it is
decoded: LZ4, Blosc and Zstandard say so in their first bytes, or by their blocks; deflate, bzip2 and LZMA are run
through, and nothing of them is kept.
"""

from __future__ import annotations

import asyncio
import bz2
import dataclasses
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from zarr.abc.codec import BytesBytesCodec, Codec
from zarr.codecs import ShardingCodec
from zarr.codecs._v2 import V2Codec

STEP = 1 << 20  # bytes that are inflated at once
DEFLATE_RATIO = 1032  # that deflate cannot exceed
ZSTD_START = b"\x28\xb5\x2f\xfd"
ZSTD_BLOCK = 1 << 17  # bytes that a compressed block becomes at most


def bound_chunks(array: Any, largest: int) -> None:
    """Let an array raise `ValueError` in place of decoding a chunk that becomes larger.

    Args:
        array: Of zarr's; it is changed.
        largest: Bytes of a decoded chunk.
    """
    opened = array.async_array
    pipeline = opened.codec_pipeline
    checked = type(pipeline).from_codecs([_checked(codec, largest) for codec in pipeline])
    object.__setattr__(opened, "codec_pipeline", checked)


def _checked(codec: Codec, largest: int) -> Codec:
    """Return a codec that looks at what it decodes before it does."""
    if isinstance(codec, ShardingCodec):
        return dataclasses.replace(codec, codecs=tuple(_checked(inner, largest) for inner in codec.codecs))
    if isinstance(codec, V2Codec):
        inner = None if codec.compressor is None else CheckedCompressor(codec.compressor, largest)
        filters = codec.filters and tuple(CheckedCompressor(one, largest) for one in codec.filters)
        return dataclasses.replace(codec, compressor=inner, filters=filters)
    return CheckedCodec(codec, largest) if isinstance(codec, BytesBytesCodec) else codec


class CheckedCompressor:
    """Decodes as a codec of numcodecs does, but nothing that becomes larger than `largest` bytes."""

    def __init__(self, codec: Any, largest: int) -> None:
        self._codec, self._largest = codec, largest

    def decode(self, data: Any, out: Any = None) -> Any:
        """Return what was encoded."""
        check_inflated(self._codec.codec_id, data, self._largest)
        return self._codec.decode(data, out)


@dataclasses.dataclass(frozen=True)
class CheckedCodec(BytesBytesCodec):  # type: ignore[misc]
    """Decodes as another codec of zarr does, but nothing that becomes larger than `largest` bytes."""

    codec: Any
    largest: int
    is_fixed_size = False

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        name = str(self.codec.to_dict()["name"]).removeprefix("numcodecs.")
        await asyncio.to_thread(check_inflated, name, chunk_bytes.as_numpy_array(), self.largest)
        return await self.codec._decode_single(chunk_bytes, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Return bytes of what is encoded, where that is always the same."""
        return int(self.codec.compute_encoded_size(input_byte_length, chunk_spec))


def check_inflated(codec: str, data: Any, largest: int) -> None:
    """Raise `ValueError` if what is encoded becomes more bytes than `largest`.

    Args:
        codec: Its name in numcodecs. Of those that are not known here, nothing is refused.
        data: Bytes, or an array of them.
        largest: Bytes.
    """
    size = _SIZES.get(codec)
    if size is None:
        return
    stored = memoryview(data).cast("B")
    if size(stored, largest) > largest:
        raise ValueError(f"a chunk of it becomes more than {largest:,} bytes, and its values take fewer")


def _number(stored: memoryview, place: int, size: int) -> int:
    return int.from_bytes(stored[place : place + size], "little")


def _zstd_size(stored: memoryview, largest: int) -> int:
    """Return bytes of all frames, as the first says for itself, or, if it does not, at most as their blocks allow."""
    total = place = 0
    while stored[place : place + 4] == ZSTD_START and total <= largest:
        flags = stored[place + 4] if place + 4 < len(stored) else 0
        single = flags >> 5 & 1
        place += 5 + (not single) + (0, 1, 2, 4)[flags & 3]
        width = (single, 2, 4, 8)[flags >> 6]
        if width and not total:  # numcodecs reads no more than the first frame says
            return _number(stored, place, width) + (256 if width == 2 else 0)
        place += width
        last = 0
        while not last and place < len(stored):
            head = _number(stored, place, 3)
            last, kind, size = head & 1, head >> 1 & 3, head >> 3
            total += ZSTD_BLOCK // 2 if kind == 2 else size  # as encoders fill blocks, but for the last
            place += 3 + (1 if kind == 1 else size)
        place += 4 * (flags >> 2 & 1)
    return total


def _run_through(decoder: Callable[[], Any], *, ratio: int = 1 << 40) -> Callable[[memoryview, int], int]:
    """Return what counts the bytes of all streams that follow each other, until they are too many.

    Args:
        decoder: Of the standard library, for one stream.
        ratio: That its format cannot exceed.
    """

    def size(stored: memoryview, largest: int) -> int:
        if len(stored) * ratio <= largest:
            return 0
        running, total = decoder(), 0
        for start in range(0, len(stored), STEP):
            given = bytes(stored[start : start + STEP])
            while total <= largest:
                if running.eof:
                    given = running.unused_data
                    running = decoder()
                if not given and getattr(running, "needs_input", True):
                    break
                total += len(running.decompress(given, STEP))
                given = getattr(running, "unconsumed_tail", b"")
        return total

    return size


_SIZES: dict[str, Callable[[memoryview, int], int]] = {
    "blosc": lambda stored, _: _number(stored, 4, 4),
    "lz4": lambda stored, _: _number(stored, 0, 4),
    "zstd": _zstd_size,
    "zlib": _run_through(zlib.decompressobj, ratio=DEFLATE_RATIO),
    "gzip": _run_through(lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), ratio=DEFLATE_RATIO),
    "bz2": _run_through(bz2.BZ2Decompressor),
    "lzma": _run_through(lzma.LZMADecompressor),
}
