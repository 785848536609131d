"""One image on several processes: each has a strip of its rows, and neighbours give each other what they lack.

H×W map, n rows, C channels

Strips begin where chunk rows of all stages begin. A block sees a halo above and below the strip, so the map is held
before each block, and the halos are exchanged first. What the global tokens gather is summed over all processes, and
so is the pooled embedding. With one process there is one strip, and nothing is exchanged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vision_longformer.config import ModelConfig
from vision_longformer.padding import Size, size_at
from vision_longformer.streaming.maps import StageMap
from vision_longformer.streaming.rows import Rows
from vision_longformer.utils.distributed import Processes

Span = tuple[int, int]  # rows from a number to before another


@dataclass(frozen=True)
class Strips:
    """Which rows each process has.

    Attributes:
        config: Of the model.
        size: (height, width) of the image in pixels.
        processes: That share it.
    """

    config: ModelConfig
    size: Size
    processes: Processes = Processes()

    @property
    def own(self) -> Span:
        """The rows of pixels of this process."""
        return self._pixels(self.processes.rank)

    def spans(self, stage: int) -> list[Span]:
        """Return the rows of a stage's map that each process has; stages are counted from 0."""
        stride = self.config.strides[stage]
        return [(-(-top // stride), -(-bottom // stride)) for top, bottom in map(self._pixels, self._ranks)]

    def span(self, stage: int) -> Span:
        """Return the rows of a stage's map that this process has."""
        return self.spans(stage)[self.processes.rank]

    def seen(self, stage: int) -> list[Span]:
        """Return the rows of a stage's map that the blocks of each process see."""
        halo, height = self.config.stages[stage].halo, size_at(self.size, self.config.strides[stage])[0]
        return [
            (max(top - halo, 0), min(bottom + halo, height)) if top < bottom else (top, top)
            for top, bottom in self.spans(stage)
        ]

    def seen_pixels(self) -> Span:
        """Return the rows of pixels that the first block of this process sees."""
        top, bottom = self.seen(0)[self.processes.rank]
        stride = self.config.strides[0]
        return min(top * stride, self.size[0]), min(bottom * stride, self.size[0])

    def rows_around(self, held: StageMap, stage: int, wanted: list[Span]) -> list[Rows]:
        """Return the rows that this process wants and has not, in order, from the processes that hold them.

        All processes call this at once.

        Args:
            held: The rows of a stage's map that this process has.
            stage: Which, counted from 0.
            wanted: The rows that each process wants.

        Raises:
            WorkFolderError: A process cannot read its map.
        """
        if self.processes.count == 1:
            return []
        spans, rank = self.spans(stage), self.processes.rank
        others = [other for other in self._ranks if other != rank]
        given: dict[int, Rows] = {}
        with self.processes.together():
            for other in others:
                top, bottom = _common(spans[rank], wanted[other])
                if top < bottom:
                    given[other] = held.rows(top, bottom)
        taken = {}
        like = held.read(0, 0)
        for other in others:
            top, bottom = _common(spans[other], wanted[rank])
            if top < bottom:
                taken[other] = Rows(top, like.new_empty(bottom - top, *held.shape[1:]), None)
        self.processes.exchange(
            {other: rows.tokens.contiguous() for other, rows in given.items()},
            {other: rows.tokens for other, rows in taken.items()},
        )
        masks = {
            other: rows.tokens.new_empty(rows.tokens.shape[:2], dtype=torch.uint8) for other, rows in taken.items()
        }
        self.processes.exchange({other: _mask(rows) for other, rows in given.items()}, masks)
        return [Rows(rows.top, rows.tokens, masks[other].bool()) for other, rows in taken.items()]

    @property
    def _ranks(self) -> range:
        return range(self.processes.count)

    def _pixels(self, rank: int) -> Span:
        """Return the rows of pixels of a process; with more processes than rows of chunks, some have none."""
        unit = math.lcm(
            *(stride * stage.step for stride, stage in zip(self.config.strides, self.config.stages, strict=True))
        )
        units, count = -(-self.size[0] // unit), self.processes.count
        top, bottom = (min(-(-units * number // count) * unit, self.size[0]) for number in (rank, rank + 1))
        return top, bottom


def _common(own: Span, wanted: Span) -> Span:
    return max(own[0], wanted[0]), min(own[1], wanted[1])


def _mask(rows: Rows) -> Tensor:
    """Return (n, W) bytes, 1 where a position is real."""
    if rows.valid is None:
        return rows.tokens.new_ones(rows.tokens.shape[:2], dtype=torch.uint8)
    return rows.valid.to(device=rows.tokens.device, dtype=torch.uint8).contiguous()
