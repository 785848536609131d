"""The mechanisms side by side: time, memory, multiply-adds and parameters against resolution.

Each mechanism at each size is measured in a process of its own (`worker`), so that its peak memory is its own. What
would not fit is forecast (`activations`) and not begun; what grows beyond the bound all the same is ended.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from vision_longformer.attention.ablations import find_mechanism, with_attention
from vision_longformer.backbone import VisionLongformer
from vision_longformer.benchmarking.worker import Measurement, Task
from vision_longformer.config import ModelConfig
from vision_longformer.costs import attention_multiply_adds, multiply_adds
from vision_longformer.memory.activations import forecast_memory
from vision_longformer.utils.system_memory import gigabytes
from vision_longformer.variants import CONFIGS, PREFIX, VARIANTS

Status = Literal["measured", "refused", "too large", "killed", "timed out", "failed"]
POLL_SECONDS = 0.02
CHILD = (sys.executable, "-m", "vision_longformer.benchmarking.worker")


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        memory: Bytes that a pass may take beside the loaded model; None sets no bound.
        repeats: Timed passes.
        time_limit: Seconds for one process.
        threads: Of PyTorch; None leaves its default.
    """

    memory: int | None
    repeats: int = 5
    time_limit: float = 600.0
    threads: int | None = None


@dataclass(frozen=True)
class Row:
    """One mechanism at one size.

    Attributes:
        attention: Name of the mechanism.
        side: Of the square image, in pixels.
        parameters: Of the measured model, whose tables are sized for the variant's own image size.
        parameters_at_size: Of a model built for images of this size, whose tables are sized for it.
        multiply_adds: Of a pass.
        attention_multiply_adds: Of these, those of the products of queries, keys and values.
        forecast_memory: Bytes that a pass was forecast to take beside the loaded model; None if it is refused.
        status: Whether it was measured, or why not.
        note: A sentence on why not.
        measurement: None if it was not measured.
    """

    attention: str
    side: int
    parameters: int
    parameters_at_size: int
    multiply_adds: int
    attention_multiply_adds: int
    forecast_memory: int | None = None
    status: Status = "measured"
    note: str = ""
    measurement: Measurement | None = None


def comparison_config(model: str, attention: str) -> ModelConfig:
    """Return the form of a variant, with absolute positions, that has a mechanism in its stages.

    Args:
        model: A name in `variants.VARIANTS`.
        attention: One of `list_mechanisms()`.

    Raises:
        ValueError: There is no such variant or mechanism; suggests the nearest.
    """
    if model not in VARIANTS:
        close = difflib.get_close_matches(model.removeprefix(PREFIX), VARIANTS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"model={model!r}: there is no such model; {hint}they are {', '.join(VARIANTS)}")
    find_mechanism(attention)
    return with_attention(CONFIGS[f"{PREFIX}{model}_ape"], attention)


def compare(model: str, attentions: Sequence[str], sides: Sequence[int], settings: Settings) -> Iterator[Row]:
    """Measure each mechanism at each size, the smallest first.

    Args:
        model: A name in `variants.VARIANTS`.
        attentions: Names of mechanisms.
        sides: Of square images, in pixels.
        settings: How to measure.

    Yields:
        A row as soon as it is measured, or found to be impossible.
    """
    configs = {attention: comparison_config(model, attention) for attention in attentions}
    for side in sorted(sides):
        for attention, config in configs.items():
            yield measured_row(describe(attention, config, side), config, settings)


def describe(attention: str, config: ModelConfig, side: int) -> Row:
    """Return what is known of a mechanism at a size without measuring."""
    in_attention, grid = 0, (side, side)
    for stage in config.stages:
        grid = (-(-grid[0] // stage.patch_size), -(-grid[1] // stage.patch_size))
        in_attention += stage.depth * attention_multiply_adds(stage, grid)
    return Row(
        attention=attention,
        side=side,
        parameters=_count_parameters(config),
        parameters_at_size=_count_parameters(dataclasses.replace(config, image_size=(side, side))),
        multiply_adds=multiply_adds(config, (side, side)),
        attention_multiply_adds=in_attention,
    )


def _count_parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in VisionLongformer(config).parameters())


def measured_row(row: Row, config: ModelConfig, settings: Settings) -> Row:
    """Return `row` with its measurement, or with why there is none."""
    size = (row.side, row.side)
    try:
        forecast = forecast_memory(config, size)
    except ValueError as error:
        return dataclasses.replace(row, status="refused", note=str(error))
    row = dataclasses.replace(row, forecast_memory=forecast)
    if settings.memory is not None and forecast > settings.memory:
        note = f"would need {gigabytes(forecast)} for a pass, more than the bound of {gigabytes(settings.memory)}"
        return dataclasses.replace(row, status="too large", note=note)
    try:
        answer = run_child(Task(config, size, settings.repeats, settings.threads), settings)
    except ChildEndedError as error:
        return dataclasses.replace(row, status=error.status, note=str(error))
    if "refused" in answer:
        return dataclasses.replace(row, status="refused", note=answer["refused"])
    return dataclasses.replace(row, measurement=Measurement(**answer["measured"]))


class ChildEndedError(Exception):
    """A process was ended, or ended by itself, before it had measured."""

    def __init__(self, status: Status, sentence: str) -> None:
        super().__init__(sentence)
        self.status: Status = status


class ChildTask(Protocol):
    """What a fresh process is asked to measure."""

    def to_json(self) -> str:
        """Return what the process reads."""


def run_child(task: ChildTask, settings: Settings, *, command: Sequence[str] = CHILD) -> dict[str, Any]:
    """Measure in a fresh process, and watch over its memory and its time. It never outlives this call.

    Returns:
        Its last line, such as `{"measured": ...}` or `{"refused": ...}`.

    Raises:
        ChildEndedError: It took too much memory or time, or failed.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        given.write(task.to_json().encode())
        given.seek(0)
        process = subprocess.Popen(command, stdin=given, stdout=said, stderr=complained)
        try:
            _watch(process, said.fileno(), settings)
        finally:
            process.kill()
            process.wait()
        lines = _lines(said.fileno())
        if process.returncode == 0 and lines and "loaded" not in lines[-1]:
            return lines[-1]
        complained.seek(0)
        last = complained.read().decode(errors="replace").strip().rpartition("\n")[2]
        raise ChildEndedError("failed", f"failed: {last or f'its process ended with code {process.returncode}'}")


def _watch(process: subprocess.Popen[bytes], said: int, settings: Settings) -> None:
    """Wait for the end of a process, or raise as soon as it is beyond a bound."""
    end, loaded = time.monotonic() + settings.time_limit, None
    while process.poll() is None:
        if time.monotonic() > end:
            raise ChildEndedError("timed out", f"took longer than {settings.time_limit:g} s")
        if settings.memory is not None:
            if loaded is None:  # loading the model is no part of what is bounded
                loaded = next((line["loaded"] for line in _lines(said) if "loaded" in line), None)
            resident = _resident(process.pid)
            if loaded is not None and resident is not None and resident - loaded > settings.memory:
                raise ChildEndedError("killed", f"needs more than {gigabytes(settings.memory)} for a pass")
        time.sleep(POLL_SECONDS)


def _lines(descriptor: int) -> list[dict[str, Any]]:
    whole, _, _ = os.pread(descriptor, 1 << 20, 0).decode().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def _resident(process: int) -> int | None:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):  # it has ended, or this is not Linux
        return None


def fitted_exponent(sizes: Iterable[float], values: Iterable[float | None]) -> float | None:
    """Return the least-squares slope of log value against log size: k where values grow like size to the power k.

    Returns:
        None if fewer than two sizes have a positive value.
    """
    points = [
        (math.log(size), math.log(value)) for size, value in zip(sizes, values, strict=True) if value and value > 0
    ]
    if len({x for x, _ in points}) < 2:
        return None
    slope, _ = statistics.linear_regression(*zip(*points, strict=True))
    return float(slope)


def exponents(rows: Sequence[Row]) -> dict[str, float | None]:
    """Fit how the measured rows of one mechanism grow with the number of pixels.

    Returns:
        By name: "attention_time" and "time", of medians; "attention_multiply_adds"; "peak_memory".
    """
    measured = [(row, row.measurement) for row in rows if row.measurement is not None]
    pixels = [row.side**2 for row, _ in measured]
    return {
        "attention_time": fitted_exponent(pixels, [statistics.median(m.attention_seconds) for _, m in measured]),
        "time": fitted_exponent(pixels, [statistics.median(m.seconds) for _, m in measured]),
        "attention_multiply_adds": fitted_exponent(pixels, [row.attention_multiply_adds for row, _ in measured]),
        "peak_memory": fitted_exponent(pixels, [m.peak_memory for _, m in measured]),
    }
