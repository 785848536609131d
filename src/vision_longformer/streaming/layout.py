"""How an image is cut into bands, and which blocks see them in one pass.

W tokens a row, C channels, w rows in a chunk row

A stage's blocks need the global tokens that the block before has updated, and these are known only once it has seen
the whole map. So the map is held, in memory or in a file, between the blocks of a stage; the next one overwrites it in
place, band by band. Global tokens do not go on to the next stage: its patch embedding and first block follow the last
block of the stage before at once. What is held is then never more than one map, and a stage of a single block holds
none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vision_longformer.config import ModelConfig
from vision_longformer.padding import Size, size_at
from vision_longformer.streaming.bands import choose_band_rows


@dataclass(frozen=True)
class Layout:
    """Sizes of maps and bands.

    Attributes:
        config: Of the model.
        size: (height, width) of the image in pixels.
        itemsize: Bytes of a value.
        band_bytes: What the bands of one block may hold.
        band_rows: Chunk rows in a band, in place of `band_bytes`.
        num_stages: Of the model, if later ones were taken off; None for all of the configuration.
    """

    config: ModelConfig
    size: Size
    itemsize: int
    band_bytes: int
    band_rows: int | None = None
    num_stages: int | None = None

    @property
    def depths(self) -> list[int]:
        """How many blocks each stage has."""
        return [stage.depth for stage in self.config.stages[: self.num_stages]]

    def map_size(self, stage: int) -> Size:
        """Return (height, width) of a stage's map in tokens; stages are counted from 0."""
        return size_at(self.size, self.config.strides[stage])

    def row_bytes(self, stage: int) -> int:
        """Return what one row of a stage's map takes, W·C values."""
        return self.map_size(stage)[1] * self.config.stages[stage].width * self.itemsize

    def map_bytes(self, stage: int) -> int:
        """Return what a stage's map takes."""
        return self.map_size(stage)[0] * self.row_bytes(stage)

    def chunk_rows(self, stage: int) -> int:
        """Return the chunk rows in a band."""
        if self.band_rows is not None:
            return self.band_rows
        height, step = self.map_size(stage)[0], self.config.stages[stage].step
        return choose_band_rows(height, self.row_bytes(stage), step=step, halo=step, band_bytes=self.band_bytes)

    def band_height(self, stage: int) -> int:
        """Return the rows of tokens in a band."""
        return self.chunk_rows(stage) * self.config.stages[stage].step

    def pixel_rows(self) -> int:
        """Return the rows of pixels that are read at once: those of a band of the first stage, or fewer.

        Whole patches in any case.
        """
        patch = self.config.stages[0].patch_size
        row_bytes = patch * self.size[1] * self.config.in_chans * (self.itemsize + 4)
        return patch * max(1, min(self.band_height(0), self.band_bytes // (4 * row_bytes)))


@dataclass(frozen=True)
class Step:
    """What a map goes through: a patch embedding or a block.

    Attributes:
        stage: That it belongs to, counted from 0.
        block: Of the stage, counted from 0; None for the patch embedding.
        ends: Whether it is the last block of the stage.
    """

    stage: int
    block: int | None
    ends: bool = False


@dataclass(frozen=True)
class Pass:
    """Steps that see a map while it goes by once, from one map that is held to the next.

    Attributes:
        held: The stage whose held map comes in; None for the image.
        steps: In order.
        holds: The stage whose map is held at the end, and its block that comes next; None at the end of the model.
    """

    held: int | None
    steps: tuple[Step, ...]
    holds: tuple[int, int] | None

    @property
    def ending(self) -> list[int]:
        """Stages whose last block is in this pass."""
        return [step.stage for step in self.steps if step.ends]


def passes(depths: Sequence[int], *, every_block: bool = False) -> Iterator[Pass]:
    """Yield the passes over a model, first to last.

    Args:
        depths: How many blocks each stage has.
        every_block: Hold the map before all blocks but the first, also where a stage begins.
    """
    held: int | None = None
    steps: list[Step] = []
    for stage, depth in enumerate(depths):
        steps.append(Step(stage, None))
        for block in range(depth):
            if block or (every_block and stage):
                yield Pass(held, tuple(steps), (stage, block))
                held, steps = stage, []
            steps.append(Step(stage, block, ends=block == depth - 1))
    yield Pass(held, tuple(steps), None)
