"""The backbone of a feature pyramid on an image of any size: its maps, held or in files."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vision_longformer.costs import multiply_adds
from vision_longformer.fpn.features import LongformerFeatures
from vision_longformer.fpn.pyramid import FeaturePyramid
from vision_longformer.images import Reader
from vision_longformer.padding import Size
from vision_longformer.streaming.maps import StageMap, WorkFolderError
from vision_longformer.streaming.model import stream
from vision_longformer.streaming.streamable import check_streamable


@contextlib.contextmanager
def streamed_maps(
    pyramid: FeaturePyramid,
    reader: Reader,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    work_folder: str | os.PathLike[str] | None,
    band_bytes: int,
    band_rows: int | None,
    progress: Callable[[float], None],
) -> Iterator[tuple[StageMap, ...]]:
    """Stream an image through a backbone; the maps that its pyramid needs, finest first, are there until the end.

    Args:
        pyramid: One that `features_of` takes.
        reader: The image.
        mean: See `stream`, as for the others.
        std: See there.
        work_folder: See there.
        band_bytes: See there.
        band_rows: See there.
        progress: Called after each band with the multiply-adds that are done.
    """
    features = features_of(pyramid)
    work = multiply_adds(features.model.config, reader.info.size)
    streamed = stream(
        features.model,
        reader,
        stages=[stage + 1 for stage in features.stages],
        work_folder=work_folder,
        band_bytes=band_bytes,
        band_rows=band_rows,
        mean=mean,
        std=std,
        progress=lambda step: progress(step.fraction * work),
    )
    try:
        yield streamed.maps
    finally:
        for stage_map in streamed.maps:
            stage_map.remove()


def work_of_backbone(pyramid: FeaturePyramid, size: Size) -> float:
    """Return the multiply-adds of streaming an image of (height, width) `size`."""
    return multiply_adds(features_of(pyramid).model.config, size)


def features_of(pyramid: FeaturePyramid) -> LongformerFeatures:
    """Return the backbone of a pyramid that can be streamed.

    Raises:
        ValueError: It cannot; says why.
    """
    features = pyramid.features
    if not isinstance(features, LongformerFeatures):
        raise ValueError("model: only one on a backbone of this library can be streamed")
    check_streamable(features.model)
    return features


@contextlib.contextmanager
def folder_of_maps(parent: Path | None, *, spilled: bool) -> Iterator[str | None]:
    """Make a folder for maps if they need one, and remove it.

    Args:
        parent: Where it is made; None takes the system's place for temporary files.
        spilled: Whether maps need one.

    Raises:
        WorkFolderError: It cannot be made.
    """
    if not spilled:
        yield None
        return
    try:
        folder = tempfile.TemporaryDirectory(dir=parent, prefix=".maps-", ignore_cleanup_errors=True)
    except OSError as error:
        raise WorkFolderError(f"{parent}: {(error.strerror or str(error)).lower()}") from error
    with folder as name:
        yield name
