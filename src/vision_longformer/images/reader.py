"""What every file becomes: an image that gives its rows, as they are stored, and says which pixels are missing.

H×W image, n rows, C channels
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Mask = NDArray[np.bool_]

MAX_PIXELS = 500_000_000
MAX_SIDE = 10_000_000  # of images that are planned or made up; numbers of their bytes stay within 64 bits


class ImageError(ValueError):
    """An image cannot be read; the message names it and says why."""


class UnsupportedError(ImageError):
    """A file is whole, but of a kind that this reader cannot read; another one may."""


class Window(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The row below it."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The column to the right of it."""
        return self.left + self.width


class PixelRows(NamedTuple):
    """Some rows of an image, or a window of it.

    Attributes:
        values: (n, W, C), as stored.
        valid: (n, W) boolean, false where a pixel is missing, or (n, W, C), false where a value is, as a pixel is
            missing if one of the channels that are taken is; None where all are there.
    """

    values: Array
    valid: Mask | None = None

    @property
    def seen(self) -> Mask | None:
        """(n, W) boolean, false where a pixel is missing; None where all are there."""
        return self.valid if self.valid is None or self.valid.ndim == 2 else np.all(self.valid, axis=2)


@dataclass(frozen=True)
class ImageInfo:
    """What is known of an image before its pixels are read.

    Attributes:
        name: For messages.
        height: In pixels.
        width: In pixels.
        channels: As stored, opacity included.
        dtype: Of the stored values.
        preferred_rows: Rows that are cheapest to read together, such as the height of a tile.
        note: What of the file is left out, for people to read; "" if nothing is.
        opacity: Whether the last of two or four channels is opacity.
        identity: Changes when the file does; "" where there is no file.
        georeference: Where on earth the image lies (see `images.geotiff`); empty if it does not say.
        value_range: Stored values that become 0 and 1; None where their type says.
        downsample: By how much its pixels are higher and wider than those of full resolution.
        full_size: (height, width) at full resolution, where it is read at another one; None elsewhere.
        pixel_size: (height, width) of a pixel in micrometres, where it is read at a stated scale; None elsewhere (see
            `images.pixel_size`).
        decoding_bytes: Of a pixel, that are held beside the stored values while an image is decoded as a whole.
    """

    name: str
    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]
    preferred_rows: int = 1
    note: str = ""
    opacity: bool = True
    identity: str = ""
    georeference: dict[str, Any] = field(default_factory=dict)
    value_range: tuple[float, float] | None = None
    downsample: tuple[float, float] = (1.0, 1.0)
    full_size: tuple[int, int] | None = None
    pixel_size: tuple[float, float] | None = None
    decoding_bytes: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width


def check_pixels(name: str, size: tuple[int, int], max_pixels: int) -> None:
    """Raise `ImageError` if an image of (height, width) `size`, not decoded yet, has too many pixels."""
    if size[0] * size[1] > max_pixels:
        raise ImageError(
            f"{name}: it has {size[1]}×{size[0]} pixels by its header, more than the limit of {max_pixels:,} "
            "(max_pixels)"
        )


def check_piece(name: str, shape: Sequence[int], max_pixels: int) -> None:
    """Raise `ImageError` if what is decoded at once is too large: a tile, strip or chunk, of which a header tells.

    Args:
        name: Of the file.
        shape: Of the piece, (rows, columns) or (rows, columns, channels).
        max_pixels: The most that it may hold, of four channels.
    """
    pixels = math.prod(shape[:2])
    if pixels > max_pixels or math.prod(shape) > 4 * max_pixels:
        raise ImageError(
            f"{name}: its values lie in pieces of {'×'.join(map(str, shape))}, each of which is decoded as a whole and "
            f"is more than the limit of {max_pixels:,} pixels (max_pixels)"
        )


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise `ImageError` if a path is no file whose bytes can be read in any order, such as a pipe, or is not there."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # a name may hold a zero
        raise ImageError(f"{path}: {(getattr(error, 'strerror', '') or str(error)).lower()}") from error
    if not stat.S_ISREG(mode):
        raise ImageError(
            f"{path}: it is no ordinary file, but a {'folder' if stat.S_ISDIR(mode) else 'pipe or device'}"
        )


def identity(path: str | os.PathLike[str]) -> str:
    """Return what changes when a file, or one in a folder, is written anew: of its size and time."""
    status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode):
        return _identity_of_file(status)
    folder = Path(path)
    files = sorted(file for file in folder.rglob("*") if not file.is_dir())
    found = "\n".join(f"{file.relative_to(folder)}:{_identity_of_file(file.stat())}" for file in files)
    return hashlib.sha256(os.fsencode(found)).hexdigest()


def _identity_of_file(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}"


class Reader(Protocol):
    """An image whose rows can be read one band after the other.

    Values are booleans, uint8, uint16, or floats in [0, 1]; anything else needs a stated range. One, two, three or four
    channels are gray, gray and opacity, RGB, RGB and opacity, unless the model takes that many channels, or `info` says
    otherwise.
    """

    @property
    def info(self) -> ImageInfo:
        """What is known of the image."""
        ...

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        """Return rows `top` to `bottom`. Bands may be asked for in any order, but are fastest from top to bottom.

        Raises:
            ImageError: They cannot be read; the message names the image.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


@runtime_checkable
class WindowReader(Protocol):
    """A reader that can decode a part of its image without the rest of its rows."""

    def read_window(self, window: Window) -> PixelRows:
        """Return a part of the image. See `Reader.read_rows`."""
        ...


def read_window(reader: Reader, window: Window) -> PixelRows:
    """Return a part of an image, and decode no more of it than its reader must.

    Raises:
        ImageError: It cannot be read.
    """
    if isinstance(reader, WindowReader):
        return reader.read_window(window)
    values, valid = reader.read_rows(window.top, window.bottom)
    columns = slice(window.left, window.right)
    return PixelRows(values[:, columns], None if valid is None else valid[:, columns])
