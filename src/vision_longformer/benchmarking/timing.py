"""Interleaved timing in one process, beside the matrix-product peak of the machine, and how results are written.

Whatever slows the machine for a while, slows all that takes turns in it: ratios of the same turn stay fair.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vision_longformer.backbone import VisionLongformer


def interleaved(
    runs: Mapping[str, Callable[[], Any]],
    *,
    repeats: int,
    on_turn: Callable[[int], None] = lambda _: None,
    most_seconds: float = math.inf,
) -> dict[str, list[float]]:
    """Time each run in turn, `repeats` times over after one warm-up.

    Args:
        runs: What to time, by name.
        repeats: Timed turns.
        most_seconds: What has been timed for as long takes no further turn.
        on_turn: Called before each turn with its number; 0 is the warm-up.

    Returns:
        The seconds of each, from its first turn on.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        on_turn(turn)
        for name, run in runs.items():
            if sum(seconds[name]) >= most_seconds:
                continue
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


class MatrixProduct:
    """A large float32 matrix product: what it reaches is the peak that models are held against.

    Args:
        side: Rows and columns of both matrices.
    """

    def __init__(self, side: int = 2048) -> None:
        self.multiply_adds = side**3
        self._factors = torch.randn(side, side), torch.randn(side, side)

    def __call__(self) -> None:
        """Multiply once."""
        a, b = self._factors
        torch.mm(a, b)


class AttentionClock:
    """Adds up the time that a model's layers spend in attention proper.

    Args:
        model: Each of its blocks gets hooks around its attention and the linear layers and convolutions in it.
    """

    def __init__(self, model: VisionLongformer) -> None:
        self._seconds = 0.0
        self._started: dict[nn.Module, float] = {}
        for stage in model.stages:
            for block in stage.blocks:  # type: ignore[union-attr]
                self._watch(block.attn, sign=1)
                for module in block.attn.modules():
                    if isinstance(module, nn.Linear | nn.Conv2d):
                        self._watch(module, sign=-1)

    def _watch(self, module: nn.Module, *, sign: int) -> None:
        def start(*_: Any) -> None:
            self._started[module] = time.perf_counter()

        def stop(*_: Any) -> None:
            self._seconds += sign * (time.perf_counter() - self._started[module])

        module.register_forward_pre_hook(start)
        module.register_forward_hook(stop)

    def reset(self) -> None:
        """Start from zero."""
        self._seconds = 0.0

    def read(self) -> float:
        """Return the seconds since `reset`."""
        return self._seconds


def gflops(multiply_adds: float, seconds: float) -> float:
    """Return billions of operations a second, two for each multiply-add."""
    return 2 * multiply_adds / seconds / 1e9


def matrix_product_gflops(*, side: int = 2048, repeats: int = 5) -> float:
    """Return the float32 billions of operations a second of a large square matrix product, the median of some."""
    product = MatrixProduct(side)
    seconds = interleaved({"product": product}, repeats=repeats)["product"]
    return gflops(product.multiply_adds, statistics.median(seconds))


def ratios(own: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return `own` over `other`, turn by turn."""
    return [mine / theirs for mine, theirs in zip(own, other, strict=True)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return "median (lowest to highest)"."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, without a line end."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))
