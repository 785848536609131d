"""What `benchmark` finds of attention mechanisms: time, memory, multiply-adds and parameters against resolution."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from vision_longformer.backbone import VisionLongformer
from vision_longformer.benchmarking import benchmark
from vision_longformer.benchmarking.children import Status
from vision_longformer.benchmarking.models import comparison_config
from vision_longformer.config import ModelConfig
from vision_longformer.costs import attention_multiply_adds, multiply_adds


@dataclass(frozen=True)
class Measurement:
    """What was measured.

    Attributes:
        seconds: Of each timed pass.
        attention_seconds: Of the attention proper of all layers, in the same passes: the time in each block's
            attention without that in its linear layers and convolutions.
        peak_memory: Bytes of peak resident memory of a pass above that of the loaded, warmed-up model with its image;
            None where it cannot be measured.
        threads: That PyTorch computed with.
    """

    seconds: list[float]
    attention_seconds: list[float]
    peak_memory: int | None
    threads: int


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


def compared(row: benchmark.Row, *, threads: int) -> Row:
    """Return what `benchmark` found of a mechanism at a size, with what is known without measuring.

    Args:
        row: Of a square image.
        threads: That it was measured with.
    """
    assert row.attention is not None
    found = describe(row.attention, comparison_config(row.model, row.attention), row.size[0])
    measurement = None
    if row.status == "measured":
        measurement = Measurement(list(row.seconds), list(row.attention_seconds), row.peak_memory, threads)
    return dataclasses.replace(
        found, forecast_memory=row.forecast_memory, status=row.status, note=row.note, measurement=measurement
    )


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
