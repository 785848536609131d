"""Some of an image's channels, in the order a model takes them, and values in a stated range."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from vision_longformer.images.decode import ImageError
from vision_longformer.images.reader import ImageInfo, PixelRows, Reader


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
        self.info: ImageInfo = dataclasses.replace(info, value_range=value_range or info.value_range)

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        """Return rows `top` to `bottom`. See `Reader`."""
        values, valid = self._reader.read_rows(top, bottom)
        return PixelRows(values if self._channels is None else np.take(values, self._channels, axis=2), valid)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
