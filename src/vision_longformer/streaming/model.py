"""The door to streaming: `stream(model, reader)`."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from vision_longformer.backbone import VisionLongformer
from vision_longformer.images import Reader
from vision_longformer.streaming.bands import BAND_BYTES
from vision_longformer.streaming.maps import WorkFolderError
from vision_longformer.streaming.result import ALONE, Pool, StreamedFeatures
from vision_longformer.streaming.run import Progress, Run, Settings
from vision_longformer.streaming.source import PixelSource
from vision_longformer.streaming.streamable import check_streamable
from vision_longformer.timm_interface import normalisation
from vision_longformer.utils.distributed import Processes
from vision_longformer.utils.locks import Lock, LockedError
from vision_longformer.weights import weights_digest


@torch.no_grad()
def stream(
    model: VisionLongformer,
    reader: Reader,
    *,
    stages: Sequence[int] | None = None,
    work_folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    every_block: bool = False,
    band_bytes: int = BAND_BYTES,
    band_rows: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    progress: Callable[[Progress], None] | None = None,
    processes: Processes = ALONE,
) -> StreamedFeatures:
    """Encode an image of any size, band by band. The result is that of a pass over the whole image.

    Several processes can share it, if all of them call this with the same arguments: each then gets the same embedding
    and global tokens, and a strip of each map, whose first row is its `top`.

    Args:
        model: In evaluation mode, with windowed (chunk or exact) or global-only attention in all stages. It computes
            in its own type, where it is.
        reader: The image, from `open_reader` or of your own.
        stages: Whose maps to keep, counted from 1; all of them by default, none with ().
        work_folder: Where maps are kept, in files; by default they are in memory. Made if need be.
        resume: Go on where an earlier call with the same image, model and settings stopped in this work folder, and
            leave there what a later one needs: once the run is over, its result, for as long as its maps are there.
            This takes room for two maps of a stage rather than one.
        every_block: Hold the map between all blocks, also where a stage begins: with `resume` less is lost, but more
            is written.
        band_bytes: What the bands of one block may hold, in bytes; a single chunk row may be more.
        band_rows: Chunk rows in a band, in place of `band_bytes`.
        mean: Of each channel, in [0, 1], taken off before the model sees it; by default the model's own.
        std: Standard deviation of each channel, likewise.
        progress: Called after each band.
        processes: That share the image, from `utils.distributed.join`. The map is then held between all blocks, and
            each process has a folder of its own in the work folder. What is raised in one is raised in all.

    Raises:
        ValueError: The model cannot be streamed, is in training mode, has no such stage, or takes another number of
            channels than `mean` and `std` are for.
        ImageError: The image cannot be read.
        WorkFolderError: The work folder cannot be written, or another run is at work there.
    """
    depth = len(model.stages)
    wanted = tuple(range(1, depth + 1)) if stages is None else tuple(sorted(set(stages)))
    _check(model, wanted, work_folder=work_folder, resume=resume, band_bytes=band_bytes, band_rows=band_rows)
    every_block = every_block or processes.count > 1
    with processes.together():
        folder = None if work_folder is None else _folder(work_folder, processes)
    mean, std = _normalisation(model, mean, std)
    parameter = next(model.parameters())
    source = PixelSource(reader, mean, std, dtype=parameter.dtype, device=parameter.device)
    fingerprint = None
    if resume:
        about: list[object] = [mean, std, wanted, every_block, str(parameter.dtype)]
        if processes.count > 1:
            about += [processes.rank, processes.count]
        fingerprint = _fingerprint(model, reader, about)
    settings = Settings(
        wanted=frozenset(stage - 1 for stage in wanted),
        work_folder=folder,
        band_bytes=band_bytes,
        band_rows=band_rows,
        every_block=every_block,
        fingerprint=fingerprint,
        progress=progress,
        processes=processes,
    )
    run = Run(model, source, settings)
    with contextlib.ExitStack() as stack:
        with processes.together():
            stack.enter_context(_alone(folder))
        embedding = run.run(Pool(model.norm, model.global_pool, reader.info, processes=processes))
    outputs = [run.outputs[stage - 1] for stage in wanted]
    return StreamedFeatures(
        stages=wanted,
        maps=tuple(output.map for output in outputs),
        global_tokens=tuple(output.global_tokens for output in outputs),
        embedding=embedding,
        image=reader.info,
    )


def _check(
    model: VisionLongformer,
    wanted: Sequence[int],
    *,
    work_folder: str | os.PathLike[str] | None,
    resume: bool,
    band_bytes: int,
    band_rows: int | None,
) -> None:
    depth = len(model.stages)
    for chosen in wanted:
        if not 1 <= chosen <= depth:
            raise ValueError(f"stages: there is no stage {chosen}, the model has stages 1 to {depth}")
    for field, value in (("band_bytes", band_bytes), ("band_rows", band_rows)):
        if value is not None and value < 1:
            raise ValueError(f"{field}={value}: must be at least 1")
    if resume and work_folder is None:
        raise ValueError("resume=True: needs a work_folder to keep its files in")
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")
    check_streamable(model)


def _normalisation(
    model: VisionLongformer, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    own = normalisation(model)
    chosen = own[0] if mean is None else tuple(mean), own[1] if std is None else tuple(std)
    for field, values in zip(("mean", "std"), chosen, strict=True):
        if len(values) != model.in_chans:
            raise ValueError(f"{field}={values}: must be {model.in_chans} numbers, one for each channel of the model")
    return chosen


def _folder(path: str | os.PathLike[str], processes: Processes) -> Path:
    folder = own_folder(Path(path), processes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkFolderError(f"{folder}: {(error.strerror or str(error)).lower()}") from error
    return folder


def own_folder(work_folder: Path, processes: Processes) -> Path:
    """Return where one of several processes keeps its maps."""
    return work_folder if processes.count == 1 else work_folder / f"process-{processes.rank + 1}-of-{processes.count}"


def _alone(folder: Path | None) -> contextlib.AbstractContextManager[object]:
    """Keep other runs out of a work folder."""
    if folder is None:
        return contextlib.nullcontext()
    try:
        return Lock(folder)
    except LockedError as error:
        refusal = "another run is at work there: wait until it is over, or choose another work folder"
        raise WorkFolderError(f"{folder}: {refusal}") from error


def _fingerprint(model: VisionLongformer, reader: Reader, settings: Sequence[object]) -> str:
    """Return a digest of all that the result depends on."""
    image = {**dataclasses.asdict(reader.info), "dtype": str(reader.info.dtype)}
    about = [model.config.to_dict(), weights_digest(model), image, list(settings)]
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
