"""How many bits a value has in files of which Pillow gives 8."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import BinaryIO

from PIL import Image
from PIL.ImageFile import ImageFile

CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000: its start, and the marker of its sizes
AV1_SETTINGS = b"av1C"


def stored_bits(image: Image.Image, raw_modes: set[str], file: BinaryIO | None) -> int:
    """Return the bits of a value as stored, as far as the file says; 8 where it does not.

    Args:
        image: Of Pillow's, before it is decoded.
        raw_modes: How its pixels lie in the file.
        file: What it was opened from.
    """
    if any(";16" in mode and not mode.startswith("BGR") for mode in raw_modes):  # BGR;16 are 5, 6 and 5 bits
        return 16
    if image.format == "PPM" and isinstance(image, ImageFile):
        return max((_largest(tile.args).bit_length() for tile in image.tile), default=8)
    if file is not None and image.format in IN_FILE:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return IN_FILE[image.format](data)
    return 8


def _largest(arguments: object) -> int:
    largest = arguments[1] if isinstance(arguments, tuple) and len(arguments) > 1 else 255
    return largest if isinstance(largest, int) else 255


def _bits_of_jpeg_2000(data: mmap.mmap) -> int:
    """Return the bits of the deepest channel (ISO/IEC 15444-1, A.5.1)."""
    start = data.find(CODESTREAM)
    head = data[start : start + 42]
    if start < 0 or len(head) < 42:
        return 8
    channels = int.from_bytes(head[40:42], "big")
    depths = data[start + 42 : start + 42 + 3 * channels : 3]
    return max(((depth & 0x7F) + 1 for depth in depths), default=8)


def _bits_of_avif(data: mmap.mmap) -> int:
    """Return the bits by the flags of the codec's settings (AV1 Codec ISO Media File Format Binding, 2.3)."""
    start = data.find(AV1_SETTINGS)
    flags = data[start + 6 : start + 7] if start >= 0 else b""
    if not flags or not flags[0] & 0x40:
        return 8
    return 12 if flags[0] & 0x20 else 10


IN_FILE: dict[str, Callable[[mmap.mmap], int]] = {"JPEG2000": _bits_of_jpeg_2000, "AVIF": _bits_of_avif}
