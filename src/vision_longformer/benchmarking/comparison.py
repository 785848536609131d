"""What `benchmark` finds of attention mechanisms: time, memory, multiply-adds and parameters against resolution."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vision_longformer.backbone import VisionLongformer
from vision_longformer.benchmarking import benchmark
from vision_longformer.benchmarking.models import comparison_config
from vision_longformer.config import ModelConfig
from vision_longformer.costs import attention_multiply_adds, multiply_adds


@dataclass(frozen=True)
class Row:
    """One mechanism at one size.

    Attributes:
        found: What was measured, of square images.
        parameters: Of the measured model, whose tables are sized for the variant's own image size.
        parameters_at_size: Of a model built for images of this size, whose tables are sized for it.
        multiply_adds: Of a pass.
        attention_multiply_adds: Of these, those of the products of queries, keys and values.
    """

    found: benchmark.Row
    parameters: int
    parameters_at_size: int
    multiply_adds: int
    attention_multiply_adds: int

    @property
    def attention(self) -> str:
        """Name of the mechanism."""
        return self.found.attention or ""

    @property
    def side(self) -> int:
        """Of the image, in pixels."""
        return self.found.size[0]

    @property
    def is_measured(self) -> bool:
        """Whether there are times."""
        return self.found.status == "measured"

    def to_dict(self, *, threads: int) -> dict[str, Any]:
        """Return everything as JSON can store it; `threads` computed."""
        found, names = self.found, ("seconds", "attention_seconds", "peak_memory")
        measurement = {**{name: getattr(found, name) for name in names}, "threads": threads}
        return {
            "attention": self.attention,
            "side": self.side,
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)[1:]},
            **{name: getattr(found, name) for name in ("forecast_memory", "status", "note")},
            "measurement": measurement if self.is_measured else None,
        }


def describe(found: benchmark.Row) -> Row:
    """Return what `benchmark` found of a mechanism at a size, with what is known without measuring."""
    assert found.attention is not None
    config, size = comparison_config(found.model, found.attention), found.size
    in_attention, grid = 0, size
    for stage in config.stages:
        grid = (-(-grid[0] // stage.patch_size), -(-grid[1] // stage.patch_size))
        in_attention += stage.depth * attention_multiply_adds(stage, grid)
    return Row(
        found,
        parameters=_count_parameters(config),
        parameters_at_size=_count_parameters(dataclasses.replace(config, image_size=size)),
        multiply_adds=multiply_adds(config, size),
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
    measured = [row for row in rows if row.is_measured]
    pixels = [row.side**2 for row in measured]
    return {
        "attention_time": fitted_exponent(pixels, [statistics.median(row.found.attention_seconds) for row in measured]),
        "time": fitted_exponent(pixels, [statistics.median(row.found.seconds) for row in measured]),
        "attention_multiply_adds": fitted_exponent(pixels, [row.attention_multiply_adds for row in measured]),
        "peak_memory": fitted_exponent(pixels, [row.found.peak_memory for row in measured]),
    }
