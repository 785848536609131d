"""Interleaved timing in one process, beside the matrix-product peak of the machine, and how results are written.

Whatever slows the machine for a while, slows all that takes turns in it: ratios of the same turn stay fair.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch


def interleaved(
    runs: Mapping[str, Callable[[], Any]], *, repeats: int, on_turn: Callable[[int], None] = lambda _: None
) -> dict[str, list[float]]:
    """Time each run in turn, `repeats` times over after one warm-up.

    Args:
        runs: What to time, by name.
        repeats: Timed turns.
        on_turn: Called before each turn with its number; 0 is the warm-up.

    Returns:
        The seconds of each, turn by turn.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        on_turn(turn)
        for name, run in runs.items():
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
