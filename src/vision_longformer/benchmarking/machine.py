"""What a measurement ran on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from vision_longformer.benchmarking.timing import matrix_product_gflops
from vision_longformer.utils.version import __version__


def describe_machine(threads: int | None = None) -> dict[str, Any]:
    """Say what computes here, with `threads` threads or PyTorch's default."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads or torch.get_num_threads(),
        "system": platform.system(),
        "torch": torch.__version__,
        "vision_longformer": __version__,
    }


def machine_line() -> str:
    """Describe processor, threads, versions and the matrix-product peak, which is measured now, in a line."""
    machine = describe_machine()
    return (
        f"{machine['processor']}, {machine['threads']} threads, {machine['capability']}, torch {machine['torch']}, "
        f"{matrix_product_gflops():.0f} GFLOP/s in a float32 product of 2048×2048 matrices"
    )
