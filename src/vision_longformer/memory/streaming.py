"""What a streamed image will take of memory and disk, by arithmetic: the buffers that live at once.

W tokens a row, C channels, z bytes of a value; r = W·C·z bytes of a row of tokens

A pass is a chain: the image or a held map, then patch embeddings and blocks, then what keeps the result. All links
hold their row buffers and what waits in front of them; those above the one that works also hold the band they handed
on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from vision_longformer.attention.rowwise import chunk_bytes, row_buffer_bytes
from vision_longformer.streaming.layout import Layout, Pass, passes

# Tables of positions, and what convolutions and attention copy inside themselves
WORKSPACE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Stored:
    """How an image is stored.

    Attributes:
        pixel_bytes: Of one pixel, all channels.
        segment_rows: Rows that are decoded together and kept for the next band, such as the height of a tile.
    """

    pixel_bytes: int
    segment_rows: int = 1


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
    layout: Layout, stored: Stored, *, wanted: Collection[int], spilled: bool, resume: bool = False
) -> Needs:
    """Return what `stream` takes at its peak.

    Args:
        layout: Of the image and its bands.
        stored: How the image is stored.
        wanted: Stages whose maps are kept, counted from 0.
        spilled: Whether maps are in files.
        resume: Whether no map may be overwritten while it is read.
    """
    memory = disk = traffic = 0
    finished: set[int] = set()
    for step in passes(tuple(stage.depth for stage in layout.config.stages)):
        kept = set(step.ending) & set(wanted)
        maps = _maps_at_once(layout, step, finished, kept, in_place=not resume)
        bands = _bands(layout, stored, step, spilled=spilled)
        memory = max(memory, bands if spilled else bands + maps)
        disk = max(disk, maps if spilled else 0)
        moved = [step.held, step.holds, *kept]
        traffic += sum(layout.map_bytes(stage) for stage in moved if stage is not None) if spilled else 0
        finished |= kept
    return Needs(memory + WORKSPACE_BYTES, disk, traffic)


def _maps_at_once(layout: Layout, step: Pass, finished: set[int], kept: set[int], *, in_place: bool) -> int:
    """Return the bytes of the maps that exist at the end of a pass."""
    maps = [*finished, *kept]
    if step.held is not None and not (in_place and step.held in kept):
        maps.append(step.held)
    if step.holds is not None and not (in_place and step.held == step.holds):
        maps.append(step.holds)
    return sum(layout.map_bytes(stage) for stage in maps)


def _bands(layout: Layout, stored: Stored, step: Pass, *, spilled: bool) -> int:
    """Return the bytes of all bands of a pass when they are most."""
    links = list(_links(layout, stored, step, spilled=spilled))
    standing = sum(link.standing for link in links)
    peak = handed_on = 0
    for link in links:
        peak = max(peak, standing + handed_on + link.working)
        handed_on += link.result
    return peak


@dataclass(frozen=True)
class _Link:
    """Bytes of one link of a chain.

    Attributes:
        standing: Held all the time.
        working: Held besides while it works, its result included.
        result: What it hands on, and holds until that is done with.
    """

    standing: int
    working: int
    result: int


def _links(layout: Layout, stored: Stored, step: Pass, *, spilled: bool) -> Iterator[_Link]:
    rows = 0  # that come in at once
    if step.held is None:
        rows = min(layout.pixel_rows(), layout.size[0])
        yield _pixels(layout, stored, rows)
    for place, stage in enumerate(step.stages):
        row, height = layout.row_bytes(stage), layout.map_size(stage)[0]
        band = min(layout.band_height(stage), height)
        if step.held is not None and place == 0:
            # Rows of a held map: of a file they are copies, of which two bands may wait; in memory they are views.
            waiting = min(2 * band, height) * row if spilled else 0
        else:
            rows = -(-rows // layout.config.stages[stage].patch_size)
            yield _Link(0, 2 * rows * row, 0)  # before and after its norm; what is handed on waits in the block
            waiting = min(band + layout.halo(stage) + rows, height) * row
        size, channels = layout.map_size(stage), layout.config.stages[stage].width
        buffer = row_buffer_bytes(size, channels, layout.itemsize, band=band, halo=layout.halo(stage))
        chunk = chunk_bytes(size[0] * size[1], channels, layout.itemsize)
        yield _Link(buffer + waiting, 2 * band * row + chunk, band * row)
        rows = band


def _pixels(layout: Layout, stored: Stored, rows: int) -> _Link:
    """Return what reading takes: the pixels as stored, as float32, and where they are missing."""
    width, channels = layout.size[1], layout.config.in_chans
    kept = width * stored.pixel_bytes * (min(stored.segment_rows, layout.size[0]) if stored.segment_rows > 1 else 0)
    values = rows * width * channels * max(4, layout.itemsize)
    return _Link(kept, values + rows * width * (stored.pixel_bytes + channels + 1), values)
