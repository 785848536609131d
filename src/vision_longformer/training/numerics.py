"""The settings of PyTorch that a run computes with, and the versions that its results depend on."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator

import safetensors
import timm
import torch
import torchvision

from vision_longformer.training.config import ComputeOptions
from vision_longformer.utils.version import __version__

DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@contextlib.contextmanager
def numerics(options: ComputeOptions, device: torch.device) -> Iterator[None]:
    """Set threads and determinism, and put them back afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(device.type == "cpu" if options.deterministic is None else options.deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]


def autocast(options: ComputeOptions, device: torch.device) -> torch.autocast:
    """Return the context of a forward pass."""
    dtype = DTYPES[options.precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    return {
        "vision_longformer": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "safetensors": safetensors.__version__,
        "python": platform.python_version(),
    }
