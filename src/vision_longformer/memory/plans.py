"""What encoding an image will take, and the strategy for it: whole, streamed, or streamed with maps spilled to files.

Memory is the peak resident size of the process: what it holds with the model loaded, and what the strategy adds. On a
GPU it is what PyTorch holds there.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import ModelConfig
from vision_longformer.images import ImageInfo
from vision_longformer.memory.activations import FLOAT_BYTES, WORKSPACE_BYTES, forecast_memory, pass_bytes
from vision_longformer.memory.speed import Speed
from vision_longformer.memory.streaming import TYPICAL, Needs, Stored, choose_band_bytes, forecast_streaming
from vision_longformer.padding import Size, size_at
from vision_longformer.streaming.bands import BAND_BYTES
from vision_longformer.streaming.layout import Layout
from vision_longformer.streaming.streamable import check_streamable
from vision_longformer.utils.system_memory import gigabytes, resident_memory

Strategy = Literal["whole", "streamed", "spilled"]
STRATEGIES: tuple[Strategy, ...] = ("whole", "streamed", "spilled")  # fastest first: files take time
WARM_UP_SIDE = 64  # pixels
UNKNOWN_PROCESS = 900 * 10**6  # bytes of a process with a model, where the system does not tell

_warmed: weakref.WeakSet[VisionLongformer] = weakref.WeakSet()  # models that have worked, and loaded what they need


@dataclass(frozen=True)
class Forecast:
    """What one strategy takes.

    Attributes:
        strategy: Which.
        memory: Peak resident bytes of the process.
        disk: Bytes of files in the work folder.
        seconds: It takes; None without a speed to go by.
        band_bytes: What the bands of one block may hold; None for the whole image.
        reason: Why it cannot be taken; "" if it can.
    """

    strategy: Strategy
    memory: int
    disk: int
    seconds: float | None
    band_bytes: int | None
    reason: str = ""


class PlanError(ValueError):
    """An image does not fit with any strategy that was allowed; the message says what would.

    Attributes:
        forecasts: Of all strategies.
    """

    def __init__(self, message: str, forecasts: tuple[Forecast, ...]) -> None:
        super().__init__(message)
        self.forecasts = forecasts


@dataclass(frozen=True)
class Plan:
    """How to encode an image.

    Attributes:
        size: (height, width) in pixels.
        limit: Bytes that the process may take.
        forecasts: Of all strategies, fastest first.
        chosen: The fastest of those that fit.
    """

    size: Size
    limit: int
    forecasts: tuple[Forecast, ...]
    chosen: Forecast


def plan(
    model: VisionLongformer,
    height: int,
    width: int,
    *,
    memory: int,
    dtype: torch.dtype = torch.float32,
    outputs: Sequence[int] | None = None,
    strategies: Sequence[Strategy] = STRATEGIES,
    image: ImageInfo | None = None,
    disk: int | None = None,
    band_bytes: int | None = None,
    every_block: bool = False,
    speed: Speed | None = None,
) -> Plan:
    """Choose the fastest strategy to encode an image.

    A small image goes through the model first, so that what libraries load for it counts as held by the process.

    Args:
        model: In evaluation mode.
        height: Of the image in pixels.
        width: Of the image in pixels.
        memory: Bytes that the process may hold at its peak.
        dtype: In which the model computes.
        outputs: Stages whose maps are kept, counted from 1; by default all.
        strategies: Among which to choose.
        image: How the image is stored, in more pixels if it is to be shrunk; by default 8-bit RGB in tiles.
        disk: Bytes that files may take; None for any number.
        band_bytes: What the bands of one block may hold at most, where they fit.
        every_block: Whether a streamed map is held before every block, as it is where several processes share an image.
        speed: Of the machine, for forecasts of time.

    Raises:
        PlanError: It does not fit, or the model cannot take that strategy.
        ValueError: A size is below 1, or the model has no such stage.
    """
    for field, value in (("height", height), ("width", width)):
        if value < 1:
            raise ValueError(f"{field}={value}: must be at least 1 pixel")
    numbers = range(1, len(model.stages) + 1)
    for stage in outputs or ():
        if stage not in numbers:
            raise ValueError(f"outputs: there is no stage {stage}, the model has stages 1 to {len(model.stages)}")
    size, config, itemsize = (height, width), model.config, dtype.itemsize
    wanted = {stage - 1 for stage in (numbers if outputs is None else outputs)}
    stored, decoding, decoded = TYPICAL, 0, size
    if image is not None:
        decoded = image.size
        stored = Stored(image.channels * np.dtype(image.dtype).itemsize, image.preferred_rows)
        if image.decoding_bytes:  # at first, before anything else is held
            decoding = image.height * image.width * (stored.pixel_bytes + image.decoding_bytes)

    def forecast(strategy: Strategy) -> Forecast:
        try:
            if strategy == "whole":
                needs, band = Needs(_whole_bytes(config, size, stored, decoded, wanted, itemsize), 0, 0), None
            else:
                check_streamable(model)
                layout, spilled = Layout(config, size, itemsize, band_bytes or BAND_BYTES), strategy == "spilled"
                band, needs = choose_band_bytes(
                    lambda band: forecast_streaming(
                        replace(layout, band_bytes=band),
                        stored,
                        wanted=wanted,
                        spilled=spilled,
                        resume=spilled,
                        every_block=every_block,
                    ),
                    most=layout.band_bytes,
                    memory=memory - held,
                )
        except ValueError as error:
            return Forecast(strategy, 0, 0, None, None, str(error))
        seconds = None if speed is None else speed.seconds(config, size, traffic=needs.traffic)
        most = held + max(needs.memory, decoding)
        return _held_to(Forecast(strategy, most, needs.disk, seconds, band), memory=memory, disk=disk)

    with contextlib.suppress(ValueError):  # at first this loads libraries, which count as held
        forecast_memory(config, size)
    held = held_memory(model)
    forecasts = tuple(map(forecast, STRATEGIES))
    allowed = [one for one in forecasts if one.strategy in strategies]
    fitting = [one for one in allowed if not one.reason]
    if not fitting:
        raise PlanError(_refusal(size, allowed, memory=memory, disk=disk), forecasts)
    return Plan(size, memory, forecasts, fitting[0])


def _whole_bytes(
    config: ModelConfig, size: Size, stored: Stored, decoded: Size, wanted: set[int], itemsize: int
) -> int:
    """Return what `Encoder` takes beside the model for a whole image, which has a larger size until it is shrunk."""
    pixels, channels = size[0] * size[1], config.in_chans
    of_reading = (
        decoded[0] * decoded[1] * (stored.pixel_bytes + 5 * channels + 1)
    )  # stored, as float32, what is missing
    if decoded != size:
        of_reading += 4 * channels * (decoded[0] + size[0]) * size[1]  # shrunk in width, then in height
    read = pixels * (4 * channels + 1)  # float32, and what of it is there
    normalised = pixels * channels * itemsize
    stages = {*wanted, len(config.stages) - 1}
    of_pass = pass_bytes(config, size, stages=stages, itemsize=itemsize) + WORKSPACE_BYTES
    return max(of_reading, read + normalised + of_pass)


def batch_bytes(
    config: ModelConfig, size: Size, *, batch: int, stages: Sequence[int], itemsize: int = FLOAT_BYTES
) -> int:
    """Return what a batch takes beside the model and the decoded images: normalised, passing, and taken apart.

    Args:
        config: Of the model.
        size: (height, width) of the batch in pixels.
        batch: Images in it.
        stages: Whose maps are kept, counted from 1.
        itemsize: Bytes of a value.

    Raises:
        ValueError: The model refuses images of this size.
    """
    wanted = {*(stage - 1 for stage in stages), len(config.stages) - 1}
    values = config.in_chans * math.prod(size)
    values += sum(config.stages[stage].width * math.prod(size_at(size, config.strides[stage])) for stage in wanted)
    passing = pass_bytes(config, size, batch=batch, stages=wanted, itemsize=itemsize)
    return batch * values * itemsize + passing + WORKSPACE_BYTES


def largest_batch(
    config: ModelConfig, size: Size, *, most: int, memory: int, stages: Sequence[int], itemsize: int = FLOAT_BYTES
) -> int:
    """Return how many images of a size may go through a model at once: `most`, a half of it, a quarter, and so on.

    Args:
        config: Of the model.
        size: (height, width) of the batch in pixels.
        most: To begin with.
        memory: Bytes for `batch_bytes`.
        stages: Whose maps are kept, counted from 1.
        itemsize: Bytes of a value.

    Returns:
        0 if there is not enough memory for a single one, or the model refuses images of this size.
    """
    batch = most
    try:
        while batch and batch_bytes(config, size, batch=batch, stages=stages, itemsize=itemsize) > memory:
            batch //= 2
    except ValueError:
        return 0
    return batch


def held_memory(model: VisionLongformer) -> int:
    """Return what the process holds, or what PyTorch holds on a GPU, with a model that has worked."""
    parameter = next(model.parameters())
    if model not in _warmed:
        with torch.inference_mode():
            model(parameter.new_zeros(1, model.in_chans, WARM_UP_SIDE, WARM_UP_SIDE))
        _warmed.add(model)
    if parameter.device.type == "cuda":
        return int(torch.cuda.memory_allocated(parameter.device))
    return resident_memory() or UNKNOWN_PROCESS


def _held_to(found: Forecast, *, memory: int, disk: int | None) -> Forecast:
    """Say why a forecast does not fit."""
    reasons = []
    if found.memory > memory:
        reasons.append(f"{gigabytes(found.memory)} of memory are more than {gigabytes(memory)}")
    if disk is not None and found.disk > disk:
        reasons.append(f"{gigabytes(found.disk)} of files are more than the {gigabytes(disk)} that are free")
    return replace(found, reason=", and ".join(reasons))


def _refusal(size: Size, found: Sequence[Forecast], *, memory: int, disk: int | None) -> str:
    """Say in a sentence what was tried, what is in the way of each, and what would fit."""
    reasons = "; ".join(f"{one.strategy}: {one.reason}" for one in found)
    return (
        f"an image of {size[1]}×{size[0]} pixels does not fit ({reasons}): {_advice(found, memory, disk)}, keep "
        "fewer stages, shrink the image, or take a smaller model"
    )


def _advice(found: Sequence[Forecast], memory: int, disk: int | None) -> str:
    possible = [one for one in found if one.memory]
    if not possible:
        return "choose another way or model"
    without_files = [one for one in possible if disk is None or one.disk <= disk]
    least = min(without_files or possible, key=lambda one: one.memory)
    allow = f"allow {gigabytes(1.01 * least.memory)} or more"
    room = "make room for files or choose another work folder"
    if without_files:
        enough = any(one.memory <= memory for one in possible)  # if there were room
        return f"{allow}, {room}" if enough else allow
    return room if least.memory <= memory else f"{allow} and {room}"


def free_disk(work_folder: Path) -> int | None:
    """Return the bytes that can be written to a folder that may not be there yet, what it holds included."""
    there = next((parent for parent in (work_folder, *work_folder.parents) if parent.exists()), None)
    if there is None:
        return None
    held = sum(file.stat().st_size for file in work_folder.iterdir()) if work_folder.is_dir() else 0
    return shutil.disk_usage(there).free + held
