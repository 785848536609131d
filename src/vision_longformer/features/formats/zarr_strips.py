"""Features of one image as a Zarr group that several processes write together, each what it has.

H×W image, H'×W' map, n rows, C channels

No chunk is written by two processes: the one whose strip it begins in gets the rest of its rows from those below. What
is made of whole maps, the pictures for viewers, the first process makes at the end, from what was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision_longformer.features.formats.chunks import bands
from vision_longformer.features.formats.encoded import Encoded
from vision_longformer.features.formats.table import check_replaceable
from vision_longformer.features.formats.zarr_folder import (
    MASK_CHUNK,
    create_group,
    create_map,
    create_mask,
    describe,
    write_mask,
    write_rows,
    write_view,
)
from vision_longformer.padding import size_at
from vision_longformer.streaming import StageMap
from vision_longformer.streaming.strips import Span, Strips
from vision_longformer.utils.atomic_files import replacing_folder


class StoredMap:
    """A map in a Zarr group.

    Args:
        group: The group.
        name: Of the map.

    Attributes:
        shape: (H', W', C).
        valid: (H', W') boolean.
    """

    def __init__(self, group: Any, name: str) -> None:
        self._array = group[name]
        self.shape: tuple[int, int, int] = tuple(self._array.shape)
        self.valid: Tensor | None = torch.from_numpy(group[f"{name}_valid"][:])

    def read(self, top: int, bottom: int) -> Tensor:
        """Return rows as (n, W', C) float32."""
        return torch.from_numpy(self._array[top:bottom]).float()


def stored_maps(target: Path, stages: Sequence[int]) -> tuple[StoredMap, ...]:
    """Return the maps of some stages, counted from 1, of features that were written."""
    import zarr

    group = zarr.open_group(target, mode="r")
    return tuple(StoredMap(group, f"stage{stage}") for stage in stages)


def write_zarr_strips(
    target: Path, encoded: Encoded, strips: Strips, metadata: dict[str, Any], *, dtype: torch.dtype
) -> None:
    """Write the features of one image; what was at `target` is replaced once all is on disk. All processes call this.

    Args:
        target: A folder that all processes see.
        encoded: The features; of maps, the strip that this process has.
        strips: Which rows each process has.
        metadata: The description.
        dtype: Of stored maps, tokens and embedding.

    Raises:
        ImportError: zarr is not installed.
        OSError: The disk is full, cannot be written, or `target` is a folder of something else.
        ImageError: The image could not be read again.
    """
    processes, temporary = strips.processes, Path()
    with ExitStack() as stack:
        with processes.together():
            if processes.is_first:
                check_replaceable(target)
                temporary = stack.enter_context(replacing_folder(target))
                _create(temporary, encoded, strips, dtype=dtype)
        folder = Path(processes.share(str(temporary)))
        with processes.together():
            group = _open(folder, target)
        for stage, stage_map in zip(encoded.stages, encoded.maps, strict=True):
            assert isinstance(stage_map, StageMap)
            _write_strip(group, stage, stage_map, strips)
        with processes.together():
            write_mask(group["valid"], encoded.valid, *_whole_chunks(strips.own, MASK_CHUNK, encoded.size[0]))
        with processes.together():
            if processes.is_first:
                views = [
                    write_view(group, f"stage{stage}", StoredMap(group, f"stage{stage}"), stride=stride)
                    for stage, stride in zip(encoded.stages, encoded.strides, strict=True)
                ]
                describe(group, folder, encoded, metadata, views, dtype=dtype)
        with processes.together():
            stack.close()


def _create(folder: Path, encoded: Encoded, strips: Strips, *, dtype: torch.dtype) -> None:
    group = create_group(folder)
    for stage, stride in zip(encoded.stages, encoded.strides, strict=True):
        size = size_at(encoded.size, stride)
        create_map(group, f"stage{stage}", (*size, strips.config.stages[stage - 1].width), dtype=dtype)
    create_mask(group, "valid", encoded.size)


def _open(folder: Path, target: Path) -> Any:
    import zarr

    try:
        return zarr.open_group(folder, mode="r+")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{target}: the process of another machine does not see it: name a folder that all machines share"
        ) from error


def _write_strip(group: Any, stage: int, stage_map: StageMap, strips: Strips) -> None:
    """Write the chunks of a stage's map that begin in this process's strip."""
    array, processes = group[f"stage{stage}"], strips.processes
    height, step = array.shape[0], array.chunks[0]
    wanted = [_whole_chunks(span, step, height) for span in strips.spans(stage - 1)]
    below = strips.rows_around(stage_map, stage - 1, wanted)
    masks = processes.gather(None if stage_map.valid is None else stage_map.valid.cpu())
    with processes.together():
        first, last = wanted[processes.rank]
        own = stage_map.top + stage_map.shape[0]
        for top, bottom in bands(last - first, step):
            parts = [stage_map.rows(first + top, min(first + bottom, own)).tokens] if first + top < own else []
            parts += [
                rows.part(max(rows.top, first + top), min(rows.bottom, first + bottom)).tokens
                for rows in below
                if max(rows.top, first + top) < min(rows.bottom, first + bottom)
            ]
            write_rows(array, torch.cat(parts), first + top)
        if processes.is_first and any(mask is not None for mask in masks):
            valid = torch.ones(array.shape[:2], dtype=torch.bool)
            for (top, bottom), mask in zip(strips.spans(stage - 1), masks, strict=True):
                if mask is not None:
                    valid[top:bottom] = mask
            group[f"stage{stage}_valid"][:] = valid.numpy()


def _whole_chunks(span: Span, step: int, height: int) -> Span:
    """Return the rows of the chunks that begin in a span."""
    top, bottom = (min(-(-row // step) * step, height) for row in span)
    return top, bottom
