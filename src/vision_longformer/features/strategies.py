"""One image to features, whole or streamed, as a plan says.

H×W image, C channels
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from vision_longformer.features.encoder import Encoder
from vision_longformer.features.formats.encoded import Encoded, encoded_from_features, encoded_from_stream
from vision_longformer.features.resume import WorkFolder
from vision_longformer.features.stage_pictures import StagePictures, picture_stages
from vision_longformer.images import AS_STORED, ImageInfo, Pixels, Reader, Reading, open_reader
from vision_longformer.images.geotiff import scaled_georeference
from vision_longformer.images.pixels import shrunk_size, whole_pixels
from vision_longformer.images.reader import check_pixels
from vision_longformer.memory.plans import STRATEGIES, Plan, Strategy, free_disk, plan
from vision_longformer.streaming import Progress, stream
from vision_longformer.utils.system_memory import default_bound, resident_memory

logger = logging.getLogger(__name__)

WORK_FOLDER = ".work"  # below the output, if no other is named

OnBand = Callable[[float, int], None]  # the share of the work that is done, from 0 to 1, and the image's pixels


@dataclass(frozen=True)
class Limits:
    """What encoding an image may take.

    Attributes:
        strategy: "auto" takes the fastest that fits.
        memory: Bytes that the process may hold; None for what it holds and 60% of what is free.
        work_folder: Where maps are spilled, each image's in a folder of its own that is removed at the end; by default
            below the output.
    """

    strategy: Literal["auto"] | Strategy = "auto"
    memory: int | None = None
    work_folder: Path | None = None

    def bytes(self, device: torch.device, *, processes: int = 1) -> int:
        """Return the bytes that the process may hold now, one of so many that share the machine's memory."""
        if self.memory is not None:
            return self.memory
        held = (resident_memory() or 0) if device.type == "cpu" else torch.cuda.memory_allocated(device)
        return held + default_bound(device) // (processes if device.type == "cpu" else 1)


@dataclass(frozen=True)
class EncodedImage:
    """An image that was encoded.

    Attributes:
        encoded: Its features, to be written.
        original_size: (height, width) in pixels as stored, upright.
        note: What of the file was left out.
        plan: That was followed.
        reader: The image, where it was streamed; else None.
        pixels: The image, where it was encoded whole; else None.
        pictures: What was seen of the model, likewise, if that was asked for.
    """

    encoded: Encoded
    original_size: tuple[int, int]
    note: str
    plan: Plan
    reader: Reader | None = None
    pixels: Pixels | None = None
    pictures: StagePictures | None = None


@contextmanager
def encoded_image(
    encoder: Encoder,
    path: Path,
    *,
    limits: Limits,
    work_folder: Path,
    reading: Reading = AS_STORED,
    identity: str = "",
    georeference: dict[str, Any] | None = None,
    pictures: bool = False,
    on_plan: Callable[[Plan], None] = lambda _: None,
    on_band: OnBand | None = None,
) -> Iterator[EncodedImage]:
    """Encode an image, and give its features while a `with` block writes them.

    The work folder is removed once the block is over. After an exception it stays (see `WorkFolder`), and the next call
    of the same identity goes on from there.

    Args:
        encoder: The model and its settings.
        path: Of the image.
        limits: What it may take.
        work_folder: For this image alone.
        reading: How to read the image.
        identity: Changes with the contents of the image, with the model and with the settings of the encoder.
        georeference: Where on earth it lies, as stored.
        pictures: Whether to picture the stages, where the image is encoded whole.
        on_plan: Called before work begins; it may raise what is to be raised here.
        on_band: Called after each band of a streamed image.

    Raises:
        ImageError: The image cannot be read.
        PlanError: It does not fit.
        ValueError: The image is too large for a mechanism that is not linear in its size, or was to be shrunk and
            streamed.
        WorkFolderError: The work folder cannot be written, or another run is at work there.
    """
    with (
        WorkFolder(work_folder, identity) as work,
        contextlib.closing(open_reader(path, **vars(reading), max_pixels=encoder.max_pixels)) as reader,
    ):
        stored, size = reader.info.size, shrunk_size(reader.info.size, encoder.max_side)
        if encoder.max_side is not None:
            check_pixels(str(path), stored, encoder.max_pixels)
        chosen = _plan(encoder, size, limits, work, reader.info)
        if encoder.max_side is not None and chosen.chosen.strategy != "whole":
            raise ValueError("an image that is shrunk (--max-side) cannot be streamed")
        on_plan(chosen)
        logger.info("%s: %s, as %s", path, chosen.chosen.strategy, _why(chosen))
        if chosen.chosen.strategy == "whole":
            pixels = whole_pixels(reader, encoder.model.in_chans, max_side=encoder.max_side)
            reader.close()
            place = scaled_georeference(georeference or {}, (stored[0] / size[0], stored[1] / size[1]))
            yield _whole(encoder, pixels, chosen, place, pictures=pictures)
            return
        if chosen.chosen.strategy == "spilled":
            assert chosen.chosen.band_bytes is not None
            work.begin(chosen.chosen.band_bytes)
        yield _streamed(encoder, reader, chosen, georeference, work, on_band)


def _why(chosen: Plan) -> str:
    """Say why an image goes the way that a plan chose."""
    others = [f"{one.strategy} does not fit ({one.reason})" for one in chosen.forecasts if one.reason]
    return "; ".join(others) or f"{chosen.chosen.memory / 1e6:.0f} MB of memory fit"


def work_folder_of(name: str, limits: Limits, output: Path) -> Path:
    """Return the folder for the maps of an image, whose features go to `output` below its name, in any format."""
    name = hashlib.sha256(os.fsencode((output / name).resolve())).hexdigest()[:16]
    return (limits.work_folder or output / WORK_FOLDER) / name


def left_work_folders(limits: Limits, output: Path) -> frozenset[str]:
    """Return the names of the work folders that there are: of runs that were stopped, and of others at work."""
    try:
        return frozenset(os.listdir(limits.work_folder or output / WORK_FOLDER))
    except OSError:
        return frozenset()


def remove_work_folder(limits: Limits, output: Path) -> None:
    """Remove the folder of all work folders, if this library named it and nothing is left in it."""
    if limits.work_folder is None:
        with contextlib.suppress(OSError):
            (output / WORK_FOLDER).rmdir()


def _plan(encoder: Encoder, size: tuple[int, int], limits: Limits, work: WorkFolder, image: ImageInfo) -> Plan:
    strategies: tuple[Strategy, ...] = STRATEGIES if limits.strategy == "auto" else (limits.strategy,)
    if work.band_bytes is not None and limits.strategy == "auto":
        strategies = ("spilled",)  # another one would not go on from there
    return plan(
        encoder.model,
        *size,
        memory=limits.bytes(encoder.device),
        outputs=encoder.stages,
        strategies=strategies,
        image=image,
        disk=free_disk(work.path),
        band_bytes=work.band_bytes,
    )


def _strides(encoder: Encoder) -> list[int]:
    return [encoder.model.config.strides[stage - 1] for stage in encoder.stages]


def _whole(
    encoder: Encoder, pixels: Pixels, chosen: Plan, georeference: dict[str, Any] | None, *, pictures: bool
) -> EncodedImage:
    with picture_stages(encoder.model) if pictures else contextlib.nullcontext(None) as seen:
        features = encoder.encode(pixels)
    encoded = encoded_from_features(
        features, stages=encoder.stages, strides=_strides(encoder), georeference=georeference
    )
    return EncodedImage(encoded, pixels.original_size, pixels.note, chosen, pixels=pixels, pictures=seen)


def _streamed(
    encoder: Encoder,
    reader: Reader,
    chosen: Plan,
    georeference: dict[str, Any] | None,
    work: WorkFolder,
    on_band: OnBand | None,
) -> EncodedImage:
    def report(progress: Progress) -> None:
        if on_band is not None:
            on_band(progress.fraction, chosen.size[0] * chosen.size[1])

    assert chosen.chosen.band_bytes is not None
    spilled = chosen.chosen.strategy == "spilled"
    features = stream(
        encoder.model,
        reader,
        stages=encoder.stages,
        work_folder=work.path if spilled else None,
        resume=spilled,
        band_bytes=chosen.chosen.band_bytes,
        mean=encoder.mean,
        std=encoder.std,
        progress=report,
    )
    encoded = encoded_from_stream(features, reader, strides=_strides(encoder), channels=encoder.model.in_chans)
    encoded = replace(encoded, georeference=georeference or {})
    return EncodedImage(encoded, chosen.size, reader.info.note, chosen, reader=reader)
