"""An image's rows as the first stage takes them.

n rows, W pixels a row, C channels
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vision_longformer.images import Reader, unit_rows
from vision_longformer.images.values import check_channels
from vision_longformer.streaming.rows import Rows, Stream


class PixelSource:
    """Reads, scales and normalises an image, a few rows at a time.

    Args:
        reader: The image.
        mean: Of each channel the model takes, in [0, 1].
        std: Standard deviation of each channel.
        dtype: Of the model.
        device: Of the model.

    Attributes:
        size: (height, width) in pixels.

    Raises:
        ImageError: The image's channels do not fit the model's.
    """

    def __init__(
        self,
        reader: Reader,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.reader = reader
        check_channels(reader.info, len(mean))
        self.size = reader.info.size
        self._mean, self._std = (torch.tensor(values, dtype=torch.float32) for values in (mean, std))
        self._dtype, self._device = dtype, device

    def stream(self, step: int, *, rows: tuple[int, int] | None = None) -> Stream:
        """Return the normalised pixels, `step` rows at a time; zero where a pixel is missing.

        Args:
            step: Rows that are read at once.
            rows: (top, bottom) of those that are read; all by default.
        """
        return Stream(self.size, self._rows(step, *(rows or (0, self.size[0]))))

    def _rows(self, step: int, first: int, last: int) -> Iterator[Rows]:
        for top in range(first, last, step):
            yield self._read(top, min(top + step, last))

    def _read(self, top: int, bottom: int) -> Rows:
        values, valid = unit_rows(self.reader, top, bottom, len(self._mean))
        values.sub_(self._mean).div_(self._std)
        everything = bool(valid.all())
        if not everything:
            values.masked_fill_(~valid[..., None], 0)
        tokens: Tensor = values.to(device=self._device, dtype=self._dtype)
        return Rows(top, tokens, None if everything else valid.to(self._device))
