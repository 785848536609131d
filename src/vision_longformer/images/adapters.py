"""Readers of other readers' images: some of the channels, in a stated range, upright.

H×W image, n rows, C channels
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_longformer.images.geotiff import turned_georeference
from vision_longformer.images.reader import ImageError, PixelRows, Reader, Window, read_window


class ChosenReader:
    """Reads another reader's image as it was asked for; of chosen channels, none is taken for opacity.

    Args:
        reader: The image.
        channels: Numbers of channels, counted from 0; None for all as they are.
        value_range: Stored values that become 0 and 1; None for what the image says.

    Raises:
        ImageError: There is no such channel.
    """

    def __init__(
        self, reader: Reader, channels: Sequence[int] | None, *, value_range: tuple[float, float] | None = None
    ) -> None:
        info = reader.info
        for channel in channels or ():
            if not 0 <= channel < info.channels:
                raise ImageError(f"{info.name}: there is no channel {channel}, it has 0 to {info.channels - 1}")
        self._reader, self._channels = reader, None if channels is None else list(channels)
        if self._channels is not None:
            info = dataclasses.replace(info, channels=len(self._channels), opacity=False)
        self.info = dataclasses.replace(info, value_range=value_range or info.value_range)

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        """Return rows `top` to `bottom`. See `Reader`."""
        return self._chosen(self._reader.read_rows(top, bottom))

    def read_window(self, window: Window) -> PixelRows:
        """Return a part of the image. See `reader.read_window`."""
        return self._chosen(read_window(self._reader, window))

    def _chosen(self, rows: PixelRows) -> PixelRows:
        values, valid = rows
        if self._channels is None:
            return PixelRows(values, valid)
        if valid is not None and valid.ndim == 3:
            valid = np.take(valid, self._channels, axis=2)
        return PixelRows(np.take(values, self._channels, axis=2), valid)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


class UprightReader:
    """Reads another reader's image turned and mirrored upright, for which it takes the whole of it into memory.

    Args:
        reader: The image as it is stored.
        orientation: EXIF's, 1 to 8, that it is stored in.
    """

    def __init__(self, reader: Reader, orientation: int) -> None:
        self._reader, self._orientation = reader, orientation
        height, width = reader.info.size[::-1] if orientation >= 5 else reader.info.size
        self.info = dataclasses.replace(
            reader.info,
            height=height,
            width=width,
            preferred_rows=height,
            georeference=turned_georeference(reader.info.georeference, orientation, (height, width)),
        )
        self._whole: PixelRows | None = None

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        """Return rows `top` to `bottom`. See `Reader`."""
        if self._whole is None:
            values, seen = self._reader.read_rows(0, self._reader.info.height)
            self._whole = PixelRows(
                upright(values, self._orientation), None if seen is None else upright(seen, self._orientation)
            )
        values, seen = self._whole
        return PixelRows(values[top:bottom], None if seen is None else seen[top:bottom])

    def close(self) -> None:
        """Close the file."""
        self._whole = None
        self._reader.close()


def orientation_of(value: Any) -> int:
    """Return EXIF's orientation, 1 to 8, from what a file has in its place: of several numbers, the first counts.

    Anything else is 1, which is upright.
    """
    if isinstance(value, bytes | tuple):
        value = next(iter(value), 1)
    return next((known for known in range(2, 9) if value == known), 1)


def upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror rows and columns as EXIF's orientation, 1 to 8, says."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array
