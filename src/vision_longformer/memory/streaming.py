"""What a streamed image will take of memory and disk, by arithmetic: the buffers that live at once.

W tokens a row, C channels, z bytes of a value; r = W·C·z bytes of a row of tokens

A pass is a chain: the image or a held map, then patch embeddings and blocks, then what keeps the result. All links
hold their row buffers and what waits in front of them; those above the one that works also hold the band they handed
on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from vision_longformer.attention.rowwise import chunk_bytes, row_buffer_bytes
from vision_longformer.memory.activations import WORKSPACE_BYTES
from vision_longformer.streaming.bands import BAND_BYTES
from vision_longformer.streaming.layout import Layout, Pass, passes

SMALLEST_BAND_BYTES = 2**20


@dataclass(frozen=True)
class Stored:
    """How an image is stored.

    Attributes:
        pixel_bytes: Of one pixel, all channels.
        segment_rows: Rows that are decoded together and kept for the next band, such as the height of a tile.
    """

    pixel_bytes: int
    segment_rows: int = 1


TYPICAL = Stored(pixel_bytes=3, segment_rows=256)  # what is taken of an image that is not there yet: 8 bits, RGB, tiles


@dataclass(frozen=True)
class Needs:
    """What a streamed image takes.

    Attributes:
        memory: Bytes beside the loaded model and what the reader holds of the file.
        disk: Bytes of files in the work folder.
        traffic: Bytes written to and read from these files.
    """

    memory: int
    disk: int
    traffic: int


def forecast_streaming(
    layout: Layout,
    stored: Stored,
    *,
    wanted: Collection[int],
    spilled: bool,
    resume: bool = False,
    every_block: bool = False,
) -> Needs:
    """Return what `stream` takes at its peak.

    Args:
        layout: Of the image and its bands.
        stored: How the image is stored.
        wanted: Stages whose maps are kept, counted from 0.
        spilled: Whether maps are in files.
        resume: Whether no map may be overwritten while it is read.
        every_block: Whether the map is held before every block, as it is where several processes share an image.
    """
    memory = disk = traffic = 0
    finished: set[int] = set()
    for part in passes(layout.depths, every_block=every_block):
        holds = None if part.holds is None else part.holds[0]
        kept = set(part.ending) & set(wanted)
        maps = [*finished, *kept]  # at the end of the pass; a map may be overwritten while it is read
        if part.held is not None and (resume or part.held not in kept):
            maps.append(part.held)
        if holds is not None and (resume or part.held != holds):
            maps.append(holds)
        bands, of_maps = _bands(layout, stored, part, spilled=spilled), sum(map(layout.map_bytes, maps))
        memory = max(memory, bands if spilled else bands + of_maps)
        if spilled:
            disk = max(disk, of_maps)
            traffic += sum(layout.map_bytes(stage) for stage in (part.held, holds, *kept) if stage is not None)
        finished |= kept
    return Needs(memory + WORKSPACE_BYTES, disk, traffic)


def choose_band_bytes(forecast: Callable[[int], Needs], *, memory: int, most: int = BAND_BYTES) -> tuple[int, Needs]:
    """Return what the bands of one block may hold, as much as fits into `memory` bytes, or as little as there is.

    Args:
        forecast: Of bands of so many bytes.
        memory: That may be taken.
        most: That bands may hold.
    """
    band_bytes = most
    while (needs := forecast(band_bytes)).memory > memory and band_bytes > SMALLEST_BAND_BYTES:
        band_bytes //= 2
    return band_bytes, needs


def _bands(layout: Layout, stored: Stored, part: Pass, *, spilled: bool) -> int:
    """Return the bytes of all bands of a pass when they are most."""
    links = list(_links(layout, stored, part, spilled=spilled))
    peak = handed_on = 0
    for link in links:
        peak = max(peak, handed_on + link.working)
        handed_on += link.result
    return peak + sum(link.standing for link in links)


class _Link(NamedTuple):
    """Bytes of one link of a chain.

    Attributes:
        standing: Held all the time.
        working: Held besides while it works, its result included.
        result: What it hands on, and holds until that is done with.
    """

    standing: int
    working: int
    result: int


def _links(layout: Layout, stored: Stored, part: Pass, *, spilled: bool) -> Iterator[_Link]:
    rows = 0  # that come in at once; 0 for those of a held map
    if part.held is None:
        rows = min(layout.pixel_rows(), layout.size[0])
        yield _pixels(layout, stored, rows)
    for step in part.steps:
        stage, row, size = layout.config.stages[step.stage], layout.row_bytes(step.stage), layout.map_size(step.stage)
        if step.block is None:
            rows = -(-rows // stage.patch_size)
            yield _Link(0, 2 * rows * row, 0)  # before and after its norm; what is handed on waits in the block
            continue
        band = min(layout.band_height(step.stage), size[0])
        waiting = min(band + stage.halo + rows, size[0]) * row
        if not rows:  # of a file they are copies, of which two bands may wait; in memory they are views
            waiting = min(2 * band, size[0]) * row if spilled else 0
        buffer = row_buffer_bytes(size, stage.width, layout.itemsize, band=band, halo=stage.halo)
        chunk = chunk_bytes(band * size[1], stage.width, layout.itemsize)
        yield _Link(buffer + waiting, 2 * band * row + chunk, band * row)
        rows = band


def _pixels(layout: Layout, stored: Stored, rows: int) -> _Link:
    """Return what reading takes: the pixels as stored, as float32, and where they are missing."""
    width, channels = layout.size[1], layout.config.in_chans
    kept = width * stored.pixel_bytes * (min(stored.segment_rows, layout.size[0]) if stored.segment_rows > 1 else 0)
    values = rows * width * channels * max(4, layout.itemsize)
    return _Link(kept, values + rows * width * (stored.pixel_bytes + channels + 1), values)
