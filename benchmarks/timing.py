"""What the benchmarks share: interleaved timing, the machine's description, tables."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch


def interleaved(runs: Mapping[str, Callable[[], Any]], *, repeats: int) -> dict[str, list[float]]:
    """Time each run in turn, `repeats` times over after one warm-up, and return the seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(values: list[float], digits: int = 2) -> str:
    """Return "median (lowest to highest)"."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def matrix_product_gflops(*, side: int = 2048, repeats: int = 5) -> float:
    """Return the float32 billions of operations a second of a large square matrix product, the median of some."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    seconds = interleaved({"product": lambda: a @ b}, repeats=repeats)["product"]
    return 2 * side**3 / statistics.median(seconds) / 1e9


def machine() -> str:
    """Describe processor, threads and versions in a line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor()
    return (
        f"{name}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, "
        f"torch {torch.__version__}, {matrix_product_gflops():.0f} GFLOP/s in a float32 product of 2048×2048 matrices"
    )


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table."""
    for row in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(row)} |")
