"""PNG files without what their pixels do not need, and the colour that is transparent in them.

Texts, colour profiles and the like may be damaged or inflate to gigabytes; Pillow refuses such files, though their
pixels are whole. So it is shown only the chunks that pixels need, and, before these, those that can say how the image
is turned, wherever they lie in the file.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, BinaryIO, NamedTuple

from PIL import Image

from vision_longformer.utils.positioned import read_at

PNG_START = b"\x89PNG\r\n\x1a\n"
NEEDED = (b"tRNS", b"acTL", b"fcTL", b"fdAT")  # besides those that the standard calls critical
TURNING = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"Raw profile type APP1\0")  # keywords of texts
LARGEST_METADATA = 1 << 20
BITS = {"1": 1, "L;2": 2, "L;4": 4, "I;16": 16, "I;16B": 16, "RGB;16B": 16}  # by Pillow's modes; of others, 8
STRETCHED = {1: 255, 2: 85, 4: 17}  # what Pillow multiplies gray values of so many bits with


class Piece(NamedTuple):
    """Some of a file: `size` bytes from `start` on."""

    start: int
    size: int


class PlainPng(io.RawIOBase):
    """A PNG file as if it had no metadata besides its orientation.

    Args:
        file: Whose descriptor is read; it stays open.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file.fileno()
        self._pieces = list(_pieces(self._file, os.fstat(self._file).st_size))
        self._starts = [0, *accumulate(piece.size for piece in self._pieces)]
        self._place = 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be read from any place on."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._starts[-1]}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill what is wanted of the piece at this place."""
        number = bisect_right(self._starts, self._place) - 1
        if number >= len(self._pieces):
            return 0
        piece, skipped = self._pieces[number], self._place - self._starts[number]
        data = read_at(self._file, min(len(buffer), piece.size - skipped), piece.start + skipped)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _pieces(file: int, end: int) -> Iterator[Piece]:
    """Yield what of a PNG file is shown, in order."""
    needed, turning, place = [], [], len(PNG_START)
    while place < end:
        head = read_at(file, 8, place)
        if len(head) < 8 or not head[4:].isalpha():  # damaged: Pillow says how
            needed.append((b"", Piece(place, end - place)))
            break
        size, kind = struct.unpack(">I4s", head)
        chunk = Piece(place, min(size + 12, end - place))
        if kind[:1].isupper() or kind in NEEDED:
            needed.append((kind, chunk))
        elif _may_turn(file, kind, chunk):
            turning.append(chunk)
        if kind == b"IEND":
            break
        place += size + 12
    yield Piece(0, len(PNG_START))
    for kind, chunk in needed:
        if kind == b"IDAT":
            yield from turning
            turning = []
        yield chunk


def _may_turn(file: int, kind: bytes, chunk: Piece) -> bool:
    """Tell whether a chunk is metadata, undamaged, that may say how the image is turned."""
    if kind not in (b"eXIf", b"tEXt", b"zTXt", b"iTXt") or chunk.size > LARGEST_METADATA:
        return False
    data = read_at(file, chunk.size, chunk.start)
    whole = struct.pack(">I", zlib.crc32(data[4:-4])) == data[-4:]
    return whole and (kind == b"eXIf" or data[8:].startswith(TURNING))


def transparent_colour(image: Image.Image, raw_mode: str) -> tuple[int, ...] | None:
    """Return the colour of a PNG file that is transparent, as its pixels have it once they are decoded with all bits.

    Args:
        image: Of Pillow's.
        raw_mode: How its pixels lie in the file; "" once they are decoded.

    Returns:
        A value for each channel; None for images of other files, with a palette, or without such a colour.
    """
    colour = image.info.get("transparency")
    if image.format != "PNG" or image.mode == "P" or colour is None:
        return None
    bits = BITS.get(raw_mode or image.mode, 8)
    values = colour if isinstance(colour, tuple) else (colour,)
    return tuple((value & (1 << bits) - 1) * STRETCHED.get(bits, 1) for value in values)
