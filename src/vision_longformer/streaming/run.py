"""One image through one model, pass by pass (see `layout`).

A run that is to survive its process writes each pass to a new file, as a map that is half overwritten is lost.

Of several processes each takes its strip of the map through a pass (see `strips`). What one waits for another in lies
between the passes, so that a process that fails within one says so to all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor

from vision_longformer.backbone import Block, Stage, VisionLongformer
from vision_longformer.costs import attention_multiply_adds, linear_multiply_adds
from vision_longformer.streaming.allocation import Trimmer
from vision_longformer.streaming.block import StreamedBlock
from vision_longformer.streaming.checkpoint import Checkpoint, Finished, Output, Store
from vision_longformer.streaming.embedding import StreamedEmbedding
from vision_longformer.streaming.layout import Layout, Pass, Step, passes
from vision_longformer.streaming.maps import FileMap, MemoryMap, StageMap
from vision_longformer.streaming.result import Pool
from vision_longformer.streaming.rows import Rows, Stream
from vision_longformer.streaming.source import PixelSource
from vision_longformer.streaming.strips import Strips
from vision_longformer.utils.distributed import Processes

_Link = StreamedEmbedding | StreamedBlock  # of the chain of a pass


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        stage: Of the block that works now, counted from 1.
        block: That block of the stage, counted from 1.
        fraction: Of all arithmetic of this process that is done, from 0 to 1.
    """

    stage: int
    block: int
    fraction: float


@dataclass(frozen=True)
class Settings:
    """How to run.

    Attributes:
        wanted: Stages whose maps are kept, counted from 0.
        work_folder: Where maps go; None for memory.
        band_bytes: What the bands of one block may hold.
        band_rows: Chunk rows in a band, in place of `band_bytes`.
        every_block: Whether every block is a pass of its own.
        fingerprint: What a checkpoint must say to go on from it; None for a run without checkpoints.
        progress: Called after each band.
        processes: That share the image.
    """

    wanted: frozenset[int]
    work_folder: Path | None
    band_bytes: int
    band_rows: int | None
    every_block: bool
    fingerprint: str | None
    progress: Callable[[Progress], None] | None
    processes: Processes = Processes()


class Run:
    """Takes an image through a model; `run` is called once.

    Attributes:
        outputs: Of the stages that were asked for, counted from 0, once `run` is over.
    """

    def __init__(self, model: VisionLongformer, source: PixelSource, settings: Settings) -> None:
        self.model, self.source, self.settings = model, source, settings
        self._like = next(model.parameters())
        self.dtype, self.device = self._like.dtype, self._like.device
        self._layout = Layout(
            model.config,
            source.size,
            self.dtype.itemsize,
            settings.band_bytes,
            band_rows=settings.band_rows,
            num_stages=len(model.stages),
        )
        self._processes = settings.processes
        self._strips = Strips(model.config, source.size, settings.processes)
        self._store: Store | None = None
        if settings.work_folder is not None:
            self._store = Store(settings.work_folder, settings.fingerprint, settings.processes)
        self.outputs: dict[int, Output] = {}
        self._unfinished: dict[int, tuple[StageMap, _Link]] = {}  # outputs of the pass that is under way
        self._outdated: list[StageMap] = []  # that nobody needs once this pass is over
        self._work = [self._work_of(stage) for stage in range(len(model.stages))]
        self._done = 0.0
        self._trim = Trimmer()

    def run(self, pool: Pool) -> Tensor:
        """Run all stages. Returns the (C,) pooled features of the last one.

        Raises:
            ImageError: The image cannot be read.
            WorkFolderError: The work folder cannot be written. What was finished stays there.
        """
        start = self._resume()
        if isinstance(start, Finished):
            return start.embedding
        held: StageMap | None = None
        tokens = self._like.new_empty(0)  # global ones, as they enter the next step
        for part in passes(self._layout.depths, every_block=self.settings.every_block):
            if start is not None:
                if part.holds == (start.stage, start.block):
                    held, tokens, start = start.held, start.global_tokens, None
                self._done += sum(self._work[step.stage] for step in part.steps if step.block is not None)
                continue
            stream = self._begin_pass(part, held)
            with self._processes.together():
                links, held = self._run_pass(part, stream, tokens, held, pool)
            for link in links:
                link.finish(self._processes)
            self._finish_outputs()
            tokens = links[-1].global_tokens
            if part.holds is not None:
                assert held is not None
                self._save(Checkpoint(*part.holds, held, tokens, self.outputs))
        pooled = pool.result(tokens)
        self._save(Finished(pooled, self.outputs))
        return pooled

    # --- the parts of a pass ----------------------------------------------------------------------------------

    def _begin_pass(self, part: Pass, held: StageMap | None) -> Stream:
        """Return what comes in: of a strip, with what the first block sees above and below it."""
        if held is None or part.held is None:
            return self.source.stream(self._layout.pixel_rows(), rows=self._strips.seen_pixels())
        around: list[Rows] = []
        if part.steps[0].block is not None:
            around = self._strips.rows_around(held, part.held, self._strips.seen(part.held))
        above = [rows for rows in around if rows.top < held.top]
        below = [rows for rows in around if rows.top >= held.top]
        bands = held.stream(self._layout.band_height(part.held))
        return Stream(self._layout.map_size(part.held), itertools.chain(above, bands, below))

    def _run_pass(
        self, part: Pass, stream: Stream, tokens: Tensor, held: StageMap | None, pool: Pool
    ) -> tuple[list[_Link], StageMap | None]:
        """Run a pass, but for what is known only once all processes have; return its links, and the map it leaves."""
        links: list[_Link] = []
        for step in part.steps:
            link = self._link(step, stream.size, tokens)
            links.append(link)
            stream, tokens = link.run(stream), link.global_tokens
            if step.block is None:
                held = None
                continue
            stream = Stream(stream.size, self._counted(stream, step.stage, step.block))
            if step.ends:
                stream = self._finish_stage(stream, link, step.stage, held)
        if part.holds is not None:
            return links, self._hold(stream, *part.holds, held)
        pool.add(stream.rows)
        return links, None

    def _link(self, step: Step, size: tuple[int, int], global_tokens: Tensor) -> _Link:
        stage = cast(Stage, self.model.stages[step.stage])
        if step.block is None:
            return StreamedEmbedding(stage.patch_embed, size)
        last = step.stage == len(self.model.stages) - 1
        return StreamedBlock(
            cast(Block, stage.blocks[step.block]),
            global_tokens,
            size,
            band_rows=self._layout.chunk_rows(step.stage),
            update_global=not step.ends or last or step.stage in self.settings.wanted,
            rows=self._strips.span(step.stage),
        )

    def _hold(self, stream: Stream, stage: int, block: int, held: StageMap | None) -> StageMap:
        """Run all that `stream` draws on, and keep the map that comes: in place of `held`, which it reads."""
        if held is None or not self._in_place:
            if held is not None:
                self._outdated.append(held)
            held = self._new_map(stage, f"held-{stage + 1}-{block}.map")
        for rows in stream.rows:
            held.write(rows)
        return held

    def _finish_stage(self, stream: Stream, link: _Link, stage: int, held: StageMap | None) -> Stream:
        """Keep the map of a stage that was asked for, as it passes."""
        if stage not in self.settings.wanted:
            if held is not None:
                self._outdated.append(held)
            return stream
        target = held
        if target is None or not self._in_place:
            if target is not None:
                self._outdated.append(target)
            target = self._new_map(stage, f"stage{stage + 1}.map")
        self._unfinished[stage] = (target, link)
        return Stream(stream.size, _kept(stream.rows, target))

    def _save(self, state: Checkpoint | Finished) -> None:
        """Note how far all processes are, if the run is to survive, and remove what was needed before."""
        if self._store is not None:
            self._store.save(state)
        for stage_map in self._outdated:
            stage_map.remove()
        self._outdated = []

    def _finish_outputs(self) -> None:
        for stage, (stage_map, link) in self._unfinished.items():
            self.outputs[stage] = Output(stage_map, link.global_tokens)
        self._unfinished = {}

    # --- where things are, and how large ----------------------------------------------------------------------

    @property
    def _in_place(self) -> bool:
        """Whether a map may be overwritten while it is read: a run that may be stopped needs the old one."""
        return self.settings.fingerprint is None

    def _resume(self) -> Checkpoint | Finished | None:
        if self._store is None:
            return None
        tops = [self._strips.span(stage)[0] for stage in range(len(self.model.stages))]
        start = self._store.load(tops, dtype=self.dtype, device=self.device)
        self.outputs = {} if start is None else dict(start.outputs)
        return start

    def _new_map(self, stage: int, name: str) -> StageMap:
        top, bottom = self._strips.span(stage)
        shape = (bottom - top, self._layout.map_size(stage)[1], self.model.config.stages[stage].width)
        if self.settings.work_folder is None:
            return MemoryMap(shape, self.dtype, self.device, top=top)
        return FileMap(self.settings.work_folder / name, shape, self.dtype, self.device, top=top)

    # --- progress ---------------------------------------------------------------------------------------------

    def _work_of(self, stage: int) -> float:
        """Multiply-adds of one block."""
        config, grid = self.model.config.stages[stage], self._layout.map_size(stage)
        return linear_multiply_adds(config, grid) + attention_multiply_adds(config, grid)

    def _counted(self, stream: Stream, stage: int, block: int) -> Iterator[Rows]:
        total = sum(work * depth for work, depth in zip(self._work, self._layout.depths, strict=True))
        top, bottom = self._strips.span(stage)
        for rows in stream.rows:
            self._done += self._work[stage] * len(rows.tokens) / (bottom - top)
            if self.settings.progress is not None:
                self.settings.progress(Progress(stage + 1, block + 1, min(self._done / total, 1.0)))
            self._trim()
            yield rows


def _kept(source: Iterator[Rows], target: StageMap) -> Iterator[Rows]:
    for rows in source:
        target.write(rows)
        yield rows
