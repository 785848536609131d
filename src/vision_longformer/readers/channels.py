"""Some of an image's channels, in the order a model takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from vision_longformer.images import ImageError
from vision_longformer.readers.base import ImageInfo, PixelRows, Reader


class ChannelsReader:
    """Reads chosen channels of another reader's image; none of them is taken for opacity.

    Args:
        reader: The image.
        channels: Their numbers, counted from 0.

    Raises:
        ImageError: There is no such channel.
    """

    def __init__(self, reader: Reader, channels: Sequence[int]) -> None:
        info = reader.info
        for channel in channels:
            if not 0 <= channel < info.channels:
                raise ImageError(f"{info.name}: there is no channel {channel}, it has 0 to {info.channels - 1}")
        self._reader, self._channels = reader, list(channels)
        self.info: ImageInfo = dataclasses.replace(info, channels=len(self._channels), opacity=False)

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        """Return rows `top` to `bottom`. See `Reader`."""
        values, valid = self._reader.read_rows(top, bottom)
        return PixelRows(np.take(values, self._channels, axis=2), valid)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
