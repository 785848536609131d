"""How an image is cut into bands, and which blocks see them in one pass.

W tokens a row, C channels, w rows in a chunk row
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vision_longformer.config import ModelConfig, Windowed
from vision_longformer.streaming.bands import choose_band_rows

Size = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """Sizes of maps and bands.

    Attributes:
        config: Of the model.
        size: (height, width) of the image in pixels.
        itemsize: Bytes of a value.
        band_bytes: What the bands of one block may hold.
        band_rows: Chunk rows in a band, in place of `band_bytes`.
    """

    config: ModelConfig
    size: Size
    itemsize: int
    band_bytes: int
    band_rows: int | None = None

    def map_size(self, stage: int) -> Size:
        """Return (height, width) of a stage's map in tokens; stages are counted from 0."""
        stride = self.config.strides[stage]
        return -(-self.size[0] // stride), -(-self.size[1] // stride)

    def row_bytes(self, stage: int) -> int:
        """Return what one row of a stage's map takes, W·C values."""
        return self.map_size(stage)[1] * self.config.stages[stage].width * self.itemsize

    def map_bytes(self, stage: int) -> int:
        """Return what a stage's map takes."""
        return self.map_size(stage)[0] * self.row_bytes(stage)

    def step(self, stage: int) -> int:
        """Return the rows in a chunk row: w, or 1 without windows."""
        attention = self.config.stages[stage].attention
        return attention.window_size if isinstance(attention, Windowed) else 1

    def halo(self, stage: int) -> int:
        """Return the rows of keys that a band needs above and below it."""
        attention = self.config.stages[stage].attention
        return attention.window_size if isinstance(attention, Windowed) and attention.neighbours != "own" else 0

    def chunk_rows(self, stage: int) -> int:
        """Return the chunk rows in a band."""
        if self.band_rows is not None:
            return self.band_rows
        height, step = self.map_size(stage)[0], self.step(stage)
        return choose_band_rows(height, self.row_bytes(stage), step=step, halo=step, band_bytes=self.band_bytes)

    def band_height(self, stage: int) -> int:
        """Return the rows of tokens in a band."""
        return self.chunk_rows(stage) * self.step(stage)

    def pixel_rows(self) -> int:
        """Return the rows of pixels that are read at once: those of a band of the first stage, or fewer.

        Whole patches in any case.
        """
        patch = self.config.stages[0].patch_size
        row_bytes = patch * self.size[1] * self.config.in_chans * (self.itemsize + 4)
        return patch * max(1, min(self.band_height(0), self.band_bytes // (4 * row_bytes)))


@dataclass(frozen=True)
class Pass:
    """Blocks that see a map while it goes by once, from one map that is held to the next.

    Attributes:
        held: The stage whose held map comes in; None for the image.
        stages: The stage of each block, in order. Where it changes, and at the image, a patch embedding comes first.
        ending: Stages whose last block is in this pass.
        holds: The stage whose map is held at the end; None at the end of the model.
    """

    held: int | None
    stages: tuple[int, ...]
    ending: tuple[int, ...]
    holds: int | None


def passes(depths: tuple[int, ...]) -> Iterator[Pass]:
    """Yield the passes over a model whose stages have so many blocks, first to last."""
    held: int | None = None
    stages: list[int] = []
    ending: list[int] = []
    for stage, depth in enumerate(depths):
        for block in range(depth):
            if block:
                yield Pass(held, tuple(stages), tuple(ending), stage)
                held, stages, ending = stage, [], []
            stages.append(stage)
        ending.append(stage)
    yield Pass(held, tuple(stages), tuple(ending), None)
