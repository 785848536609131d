"""A model that was trained, with what is needed to use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Trained:
    """A model with weights, and what is needed to use it.

    Attributes:
        model: In evaluation mode.
        classes: Names of its outputs; None if the file does not say.
        preprocessing: "mean", "std", "interpolation", "crop_pct" and "size"; of detectors and segmentation models
            "side", "max_side" and "scale" in place of the last two (see `dense_loaders`).
        task: What it was trained for.
    """

    model: nn.Module
    classes: tuple[str, ...] | None
    preprocessing: dict[str, Any]
    task: str = "classification"
