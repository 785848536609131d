"""Ordinary images: JPEG, PNG, WebP and whatever else Pillow reads, TIFFs of kinds that no other reader reads included.

H×W image, n rows, C channels
"""

from __future__ import annotations

import ctypes
import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, _imaging
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from vision_longformer.images.adapters import orientation_of, upright
from vision_longformer.images.bit_depth import stored_bits
from vision_longformer.images.errors import image_errors
from vision_longformer.images.png import PNG_START, PlainPng, transparent_colour
from vision_longformer.images.reader import (
    MAX_PIXELS,
    Array,
    ImageError,
    ImageInfo,
    Mask,
    PixelRows,
    check_file,
    check_pixels,
    identity,
)
from vision_longformer.images.values import full_depth

ORIENTATION_TAG = 0x0112  # of EXIF
INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
CHANNELS = {"LA": 2, "RGB": 3, "RGBA": 4}  # of modes; others have one
# Pillow holds colour in 8 bits: of 16-bit values it keeps the high bytes. Told the wrong byte order, it keeps the low
# ones, so that two readings have all bits.
SWAPPED_BYTES = {f"{mode};16{a}": f"{mode};16{b}" for mode in ("RGB", "RGBA") for a, b in ("BL", "LB")}
GRAY_AND_OPACITY = "LA;16B"  # 16 bits each, of which Pillow keeps 8; told that they are RGBA, it keeps all four bytes
PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}  # of Pillow's by mode; of others, 4
BAND_PIXELS = 1 << 20  # that are converted at once
FIRST_OF_SEVERAL = "only the first picture of several was read"
_TURNED_BACK = {6: 8, 8: 6}  # the orientation that undoes another, where that is not the same one

_global = threading.Lock()

with suppress(AttributeError, OSError):  # Pillow's libtiff writes to stderr what we say with the name of the file
    _libtiff = ctypes.CDLL(_imaging.__file__)
    _libtiff.TIFFSetErrorHandler(None)
    _libtiff.TIFFSetWarningHandler(None)


class PillowReader:
    """Reads an image with Pillow. It is decoded as a whole when rows are first read, and kept as it is stored.

    16-bit images keep all their bits, gray or colour; the few that cannot (JPEG 2000 and AVIF in colour, among others)
    are read with 8. Of animations and files of several pages only the first picture is read.
    `info.note` says so.

    Args:
        image: A path, or an image of Pillow's.
        max_pixels: Refuse larger files by what their header says, before they are decoded.
        indices: Take the whole numbers of an image of one channel as they are, and a palette's indices for its colours.

    Attributes:
        raw_modes: How the pixels lie in the file, in Pillow's words; empty where they are decoded already.

    Raises:
        ImageError: The file is missing, damaged, no image, too large, or has several channels and `indices` is true.
    """

    def __init__(
        self, image: str | os.PathLike[str] | Image.Image, *, max_pixels: int = MAX_PIXELS, indices: bool = False
    ) -> None:
        self._path = None if isinstance(image, Image.Image) else image if isinstance(image, Path) else Path(image)
        self._name = "the image" if self._path is None else str(self._path)
        self._array: Array | None = None
        self._valid: Mask | None = None
        self._file: BinaryIO | None = None
        with image_errors(self._name):
            try:
                if isinstance(image, Image.Image):
                    self._image = image
                else:
                    assert self._path is not None
                    check_file(self._path)
                    self._file = self._path.open("rb")
                    self._image = _opened(self._file)
                self.info = self._describe(max_pixels, indices)
            except BaseException:
                self.close()
                raise

    def _describe(self, max_pixels: int, indices: bool) -> ImageInfo:
        image, notes = self._image, []
        size = (image.height, image.width)
        self._turned_back = 1
        if isinstance(image, TiffImageFile):  # which Pillow turns upright itself, and gives the size of
            self._turned_back = _TURNED_BACK.get(self._orientation_tag, self._orientation_tag)
            size = size[::-1] if image.tag_v2.get(ORIENTATION_TAG) in (5, 6, 7, 8) else size
        if self._path is not None:
            check_pixels(self._name, size, max_pixels)
            if getattr(image, "is_animated", False):
                notes.append(FIRST_OF_SEVERAL)
        self.raw_modes = _raw_modes(image)
        colour = image.mode in ("RGB", "RGBA")
        self._in_halves = self._path is not None and colour and image.format in ("PNG", "TIFF")
        self._in_halves &= bool(self.raw_modes) and self.raw_modes <= SWAPPED_BYTES.keys()
        self._in_bytes = self._path is not None and self.raw_modes == {GRAY_AND_OPACITY}
        self._transparent = None if indices else transparent_colour(image, "".join(self.raw_modes))
        self._mode = image.mode if indices or self._in_bytes else _mode(image, keyed=self._transparent is not None)
        if indices and image.mode not in INDEX_MODES:
            raise ImageError(
                f"{self._name}: has several channels or fractions ({image.mode}), expected one of whole numbers"
            )
        whole = self._mode == "I" or self._mode.startswith("I;16") or self._in_halves or self._in_bytes
        bits = stored_bits(image, self.raw_modes, self._file)
        if bits > 8 and not whole and self._mode != "F":
            notes.append(f"{bits}-bit values were read with 8 bits")
            if self._transparent is not None:
                self._transparent = None
                notes.append("the colour that is transparent in it is not heeded")
        return ImageInfo(
            name=self._name,
            height=size[0],
            width=size[1],
            channels=2 if self._in_bytes else CHANNELS.get(self._mode, 1),
            dtype=np.dtype("f4" if self._mode == "F" else "u2" if whole else "u1"),
            preferred_rows=size[0],
            note="; ".join(notes),
            identity="" if self._path is None else identity(self._path),
            decoding_bytes=PIXEL_BYTES.get(image.mode, 4),
        )

    @cached_property
    def orientation(self) -> int:
        """EXIF's, 1 to 8, that the rows are stored in."""
        return orientation_of(self._orientation_tag)

    @cached_property
    def _orientation_tag(self) -> Any:
        """What the image says of its orientation, which may be anything; 1 if nothing that can be read."""
        with image_errors(self._name):
            if self._image.format == "PNG" and self._path is None:  # of which it may come after the pixels
                self._image.load()
            with _undisturbed():
                try:
                    # not the method of PNG images, which decodes those that have no EXIF
                    return Image.Image.getexif(self._image).get(ORIENTATION_TAG, 1)
                except Exception:  # whatever reading junk raises: pixels are whole without it
                    return 1

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        """Return rows `top` to `bottom`. See `Reader`."""
        if self._array is None:
            with image_errors(self._name):
                self._array = self._decode()
                if self._transparent is not None:
                    self._valid = (self._array != np.array(self._transparent, self._array.dtype)).any(axis=2)
        return PixelRows(self._array[top:bottom], None if self._valid is None else self._valid[top:bottom])

    def _decode(self) -> Array:
        if self._in_bytes:
            assert isinstance(self._image, ImageFile)
            self._image.tile = [_with_raw_mode(tile, self._mode) for tile in self._image.tile]
        array = _loaded(self._image, self._mode)
        if self._path is not None:
            _ = self.orientation  # before what it is read from is let go of, which takes as much memory as the pixels
            self._image.close()
        if self._in_bytes:
            array = np.ascontiguousarray(array).view(">u2")
        if self._mode == "I" and array.size and (array.min() < 0 or array.max() > 65535):
            raise ImageError(  # 16-bit values in 32 bits, as older tools hold them, are read
                f"{self._name}: its 32-bit values, {array.min()} to {array.max()}, have no defined range: "
                "scale them to 0 to 65535, or to floats in [0, 1]"
            )
        if self._in_halves:
            assert self._path is not None
            with self._path.open("rb") as file, _opened(file) as again:
                assert isinstance(again, ImageFile)
                again.tile = [_with_raw_mode(tile, SWAPPED_BYTES[_raw_mode(tile)]) for tile in again.tile]
                whole = array.astype(np.uint16)
                del array
                whole <<= 8
                for top, low in _bands(again, self._mode):
                    whole[top : top + len(low)] |= low.astype(np.uint16)
                array = whole
        array = array.astype(self.info.dtype, copy=False)
        if self.raw_modes == {"I;12"}:  # 12 bits, which Pillow leaves at 0 to 4095
            array = full_depth(array, 12)
        array = upright(array, self._turned_back)
        return array if array.ndim == 3 else array[:, :, None]

    def close(self) -> None:
        """Close the file, and let go of the pixels."""
        self._array = self._valid = None
        self.__dict__.pop("_image", None)
        if self._file is not None:
            self._file.close()

    __del__ = close


def read_indices(image: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Array:
    """Return the (H, W) whole numbers that an image of one channel stores: gray values, or indices into its palette.

    Rows and columns are as the file has them, whatever EXIF says.

    Raises:
        ImageError: The image is missing, damaged, no image, too large, or has several channels.
    """
    with closing(PillowReader(image, max_pixels=max_pixels, indices=True)) as reader:
        values = reader.read_rows(0, reader.info.height).values[..., 0]
        # Pillow stretches gray values of 2 and 4 bits to 0 to 255
        stretched = {"L;2": 85, "L;4": 17}.get("".join(reader.raw_modes), 1)
        return values // stretched if stretched > 1 else values


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Lift Pillow's limit on pixels, in whose place ours is checked, and its warnings about odd but readable files.

    Both are global, so one thread at a time does so: decoding is left out, where that is possible.
    """
    with _global, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _opened(file: BinaryIO) -> Image.Image:
    """Open a file that Python has open: of a path, Pillow maps turned TIFFs into memory with a wrong size."""
    start = file.read(len(PNG_START))
    file.seek(0)
    plain = io.BufferedReader(PlainPng(file)) if start == PNG_START else file
    with _undisturbed():
        return Image.open(plain)


def _mode(image: Image.Image, *, keyed: bool) -> str:
    """Return Pillow's mode in which values are taken: whole numbers and fractions as they are, else 8 bits.

    Args:
        image: Of Pillow's.
        keyed: Whether a colour of it is transparent, and opacity is no channel.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return image.mode
    gray = image.mode in ("1", "L", "LA", "La")
    return ("L" if gray else "RGB") + ("A" if image.has_transparency_data and not keyed else "")


def _loaded(image: Image.Image, mode: str) -> Array:
    array: Array | None = None
    for top, band in _bands(image, mode):
        if len(band) == image.height:
            return band
        if array is None:
            array = np.empty((image.height, *band.shape[1:]), band.dtype)
        array[top : top + len(band)] = band
    assert array is not None, "an image has rows"
    return array


def _bands(image: Image.Image, mode: str) -> Iterator[tuple[int, Array]]:
    """Decode an image, and yield its rows in one of Pillow's modes, many at once, each with the number of the first.

    Pillow copies what it converts, and copies it twice for NumPy, so large images are taken in parts.
    """
    with _undisturbed() if isinstance(image, TiffImageFile) else nullcontext():  # which it checks once more
        image.load()
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        whole = rows >= image.height
        band = image if whole else image.crop((0, top, image.width, min(top + rows, image.height)))
        yield top, np.asarray(band if band.mode == mode else band.convert(mode))


def _raw_modes(image: Image.Image) -> set[str]:
    """Return how the pixels lie in a file, in Pillow's words; empty where they are decoded already."""
    return {_raw_mode(tile) for tile in image.tile} if isinstance(image, ImageFile) else set()


def _raw_mode(tile: Any) -> str:
    return str(tile.args[0] if isinstance(tile.args, tuple) else tile.args)


def _with_raw_mode(tile: Any, raw_mode: str) -> Any:
    return tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
