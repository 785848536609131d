"""How high the bands of a streamed semantic head are, what they hold and how much work they are."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from vision_longformer.padding import Size, size_at
from vision_longformer.segmentation.semantic import SemanticFPN

# Bands of the head hold so many times what those of a block may: of each, some rows above and below are computed again.
OF_HEAD = 4
HALO = 6  # rows at the finest level that are computed beside those of a band, at most, counted at that level


class HeadBands:
    """Bands of each level of a semantic head.

    Args:
        model: The model.
        size: (height, width) of the image in pixels.
        band_bytes: What a band of a block may hold; one of the head, `OF_HEAD` times as much. One row is taken even
            if it holds more.
        band_rows: Rows of a level in a band, in place of `band_bytes`.

    Attributes:
        sizes: (height, width) of each level.
        work: Multiply-adds of the passes that gather statistics, by level and step.
        work_of_logits: Those of the last pass.
    """

    def __init__(self, model: SemanticFPN, size: Size, *, band_bytes: int, band_rows: int | None) -> None:
        self._config, self._size = model.config, size
        parameter: Tensor = next(model.parameters())
        self._itemsize = parameter.itemsize
        self.sizes = [size_at(size, stride) for stride in model.config.strides]
        self._band_bytes, self._band_rows = OF_HEAD * band_bytes, band_rows
        self.work = {
            (level, step): self._work(level, step) for level in range(len(self.sizes)) for step in range(level or 1)
        }
        self.work_of_logits = sum(self._work(level, (level or 1) - 1) for level in range(len(self.sizes)))

    @property
    def bytes(self) -> int:
        """What is held at most beside the backbone's maps."""
        height, width = self.sizes[0]
        rows = min(self._rows(width), height)
        return width * (rows * self._row_bytes() + min(HALO, height) * self._halo_bytes())

    def of_level(self, level: int) -> Iterator[tuple[int, int]]:
        """Yield (top, bottom) of each band of a level."""
        height, width = self.sizes[level]
        return _cut(height, self._rows(width))

    def of_pixels(self) -> Iterator[tuple[int, int]]:
        """Yield (top, bottom) of each band of the image's pixels."""
        return _cut(self._size[0], self._rows(self.sizes[0][1]) * self._config.strides[0])

    def _rows(self, width: int) -> int:
        if self._band_rows is not None:
            return self._band_rows
        left = self._band_bytes - width * HALO * self._halo_bytes()
        return max(1, left // (width * self._row_bytes()))

    def _halo_bytes(self) -> int:
        """Return what one position holds at most in the pyramid and the head's first convolution.

        That is a level's map, and what a convolution reads and writes, each with a padded or reordered copy of its own.
        """
        config = self._config
        return self._itemsize * (config.pyramid_width + 4 * max(config.pyramid_width, config.head_width))

    def _row_bytes(self) -> int:
        """Return what one position of a band holds at most: also what is summed up, and logits of its pixels twice."""
        config = self._config
        pixels = config.strides[0] ** 2
        logits = max(self._itemsize, 4) * 2 * config.num_classes * pixels + 8 * pixels
        return max(self._halo_bytes() + self._itemsize * config.head_width, logits)

    def _work(self, level: int, step: int) -> float:
        """Return the multiply-adds of a level up to a convolution of its branch."""
        config, work = self._config, 0.0
        height, width = self.sizes[level]
        work += 9 * config.pyramid_width**2 * height * width
        for number in range(step + 1):
            height, width = self.sizes[level - number]
            before = config.head_width if number else config.pyramid_width
            work += 9 * before * config.head_width * height * width
        return work


def _cut(height: int, rows: int) -> Iterator[tuple[int, int]]:
    for top in range(0, height, rows):
        yield top, min(top + rows, height)
