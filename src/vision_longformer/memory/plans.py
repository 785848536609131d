"""What encoding an image will take, and the strategy for it: whole, streamed, or streamed with maps spilled to files.

Memory is the peak resident size of the process: what it holds with the model loaded, and what the strategy adds. On a
GPU it is what PyTorch holds there.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch

from vision_longformer.backbone import Block, Stage, VisionLongformer
from vision_longformer.images import ImageInfo
from vision_longformer.memory.activations import forecast_encoding
from vision_longformer.memory.speed import Speed
from vision_longformer.memory.streaming import Stored, forecast_streaming
from vision_longformer.streaming.bands import BAND_BYTES
from vision_longformer.streaming.layout import Layout, Size
from vision_longformer.streaming.streamable import check_streamable
from vision_longformer.utils.system_memory import gigabytes, resident_memory

Strategy = Literal["whole", "streamed", "spilled"]
STRATEGIES: tuple[Strategy, ...] = (
    "whole",
    "streamed",
    "spilled",
)  # fastest first: bands copy their halo, and files take time
SMALLEST_BAND_BYTES = 2**20
WARM_UP_SIDE = 64  # pixels
TYPICAL = Stored(pixel_bytes=3, segment_rows=256)  # what is taken of an image that is not there yet: 8 bits, RGB, tiles
UNKNOWN_PROCESS = 900 * 10**6  # bytes of a process with a model, where the system does not tell


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
        image: How the image is stored; by default 8-bit RGB in tiles.
        disk: Bytes that files may take; None for any number.
        band_bytes: What the bands of one block may hold at most, where they fit.
        speed: Of the machine, for forecasts of time.

    Raises:
        PlanError: It does not fit, or the model cannot take that strategy.
        ValueError: A size is below 1, or the model has no such stage.
    """
    size = _checked(model, height, width, outputs)
    stages = range(1, len(model.stages) + 1) if outputs is None else outputs
    wanted = tuple(sorted({stage - 1 for stage in stages}))
    with contextlib.suppress(ValueError):  # at first this loads libraries, which count as held
        forecast_encoding(model.config, size, stages=wanted)
    task = _Task(
        model=model,
        size=size,
        wanted=wanted,
        stored=TYPICAL if image is None else _stored(image),
        itemsize=dtype.itemsize,
        held=held_memory(model),
        speed=speed,
    )
    found = [
        task.whole(),
        *(task.streamed(strategy, memory=memory, band_bytes=band_bytes) for strategy in STRATEGIES[1:]),
    ]
    forecasts = tuple(_held_to(one, memory=memory, disk=disk) for one in found)
    fitting = [one for one in forecasts if one.strategy in strategies and not one.reason]
    if not fitting:
        refusal = _refusal(size, [one for one in forecasts if one.strategy in strategies], memory=memory, disk=disk)
        raise PlanError(refusal, forecasts)
    return Plan(size, memory, forecasts, fitting[0])


@dataclass(frozen=True)
class _Task:
    """What is to be forecast.

    Attributes:
        model: The model.
        size: (height, width) of the image in pixels.
        wanted: Stages whose maps are kept, counted from 0.
        stored: How the image is stored.
        itemsize: Bytes of a value.
        held: Bytes that the process holds.
        speed: Of the machine; None if times are not asked for.
    """

    model: VisionLongformer
    size: Size
    wanted: tuple[int, ...]
    stored: Stored
    itemsize: int
    held: int
    speed: Speed | None

    def whole(self) -> Forecast:
        pixels, channels = self.size[0] * self.size[1], self.model.config.in_chans
        of_reading = pixels * (self.stored.pixel_bytes + 5 * channels + 1)  # stored, as float32, and what is missing
        read = pixels * (4 * channels + 1)  # float32, and what of it is there
        try:
            of_pass = forecast_encoding(self.model.config, self.size, stages=self.wanted, itemsize=self.itemsize)
        except ValueError as error:
            return Forecast("whole", 0, 0, None, None, str(error))
        return Forecast("whole", self.held + max(of_reading, read + of_pass), 0, self._seconds(0), None)

    def streamed(self, strategy: Strategy, *, memory: int, band_bytes: int | None) -> Forecast:
        """Forecast with the largest bands that fit, or with the smallest."""
        if unable := _why_not_streamed(self.model):
            return Forecast(strategy, 0, 0, None, None, unable)
        layout = Layout(self.model.config, self.size, self.itemsize, band_bytes or BAND_BYTES)
        spilled = strategy == "spilled"
        while True:
            needs = forecast_streaming(layout, self.stored, wanted=self.wanted, spilled=spilled, resume=spilled)
            total = self.held + needs.memory
            if total <= memory or layout.band_bytes <= SMALLEST_BAND_BYTES:
                return Forecast(strategy, total, needs.disk, self._seconds(needs.traffic), layout.band_bytes)
            layout = replace(layout, band_bytes=layout.band_bytes // 2)

    def _seconds(self, traffic: int) -> float | None:
        return None if self.speed is None else self.speed.seconds(self.model.config, self.size, traffic=traffic)


def _stored(image: ImageInfo) -> Stored:
    return Stored(image.channels * np.dtype(image.dtype).itemsize, image.preferred_rows)


def _checked(model: VisionLongformer, height: int, width: int, outputs: Sequence[int] | None) -> Size:
    for field, value in (("height", height), ("width", width)):
        if value < 1:
            raise ValueError(f"{field}={value}: must be at least 1 pixel")
    for stage in outputs or ():
        if not 1 <= stage <= len(model.stages):
            raise ValueError(f"outputs: there is no stage {stage}, the model has stages 1 to {len(model.stages)}")
    return height, width


def held_memory(model: VisionLongformer) -> int:
    """Return what the process holds, or what PyTorch holds on a GPU, with a model that has just worked."""
    parameter = next(model.parameters())
    with torch.inference_mode():
        model(parameter.new_zeros(1, model.in_chans, WARM_UP_SIDE, WARM_UP_SIDE))
    if parameter.device.type == "cuda":
        return int(torch.cuda.memory_allocated(parameter.device))
    return resident_memory() or UNKNOWN_PROCESS


def _why_not_streamed(model: VisionLongformer) -> str:
    for number, stage in enumerate(model.stages, start=1):
        try:
            check_streamable(cast(Block, cast(Stage, stage).blocks[0]).attn)
        except ValueError as error:
            return f"stage {number}: {error}"
    return ""


def _held_to(found: Forecast, *, memory: int, disk: int | None) -> Forecast:
    """Say why a forecast does not fit."""
    if found.reason:
        return found
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
