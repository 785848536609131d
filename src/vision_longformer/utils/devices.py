"""Where to compute."""

from __future__ import annotations

import torch
from torch import Tensor

from vision_longformer.utils.precisions import Precision


def choose_device(name: str, *, number: int | None = None) -> torch.device:
    """Return a device by name.

    Args:
        name: "cpu", "cuda", "cuda:1" and the like; "auto" prefers a GPU.
        number: Which GPU "auto" and "cuda" mean; None leaves it to PyTorch.

    Raises:
        ValueError: There is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and number is not None:
        name = f"cuda:{number}"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        if "Expected one of" in reason:  # PyTorch's list of all that it was ever compiled for
            reason = "there is no such kind; auto prefers a GPU, cpu and cuda are those of most machines"
        raise ValueError(f"device {name!r} is not available here ({reason})") from error
    return torch.device(name)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context to compute in: float32, or "bf16" by autocast, with parameters as they are."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def images_on(device: torch.device, images: Tensor) -> Tensor:
    """Copy (B, C, H, W) images to a device. A GPU gets them channels-last, which it convolves faster, and no wait."""
    layout = torch.channels_last if device.type == "cuda" else torch.preserve_format
    return images.to(device, non_blocking=True, memory_format=layout)
