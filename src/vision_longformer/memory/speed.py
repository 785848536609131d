"""How fast this machine is, measured in a moment, so that times can be forecast."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import ModelConfig
from vision_longformer.costs import multiply_adds

SIDE = 672  # pixels of the image that is timed: most of its windows have all their neighbours
FILE_BYTES = 2**26


@dataclass(frozen=True)
class Speed:
    """What a machine does in a second.

    Attributes:
        multiply_adds: With one model.
        file_bytes: Written to a disk, and there for good.
    """

    multiply_adds: float
    file_bytes: float

    def seconds(self, config: ModelConfig, size: tuple[int, int], *, traffic: int = 0) -> float:
        """Return how long an image of (height, width) `size` takes, with so many bytes of traffic to files."""
        return multiply_adds(config, size) / self.multiply_adds + traffic / self.file_bytes


@torch.inference_mode()
def measure_speed(model: VisionLongformer, folder: Path) -> Speed:
    """Time a pass over a small image, and the writing of a file.

    Args:
        model: In evaluation mode.
        folder: On the disk that is timed; the file is removed.

    Raises:
        OSError: The folder cannot be written.
    """
    parameter = next(model.parameters())
    image = parameter.new_zeros(1, model.in_chans, SIDE, SIDE)
    model(image[..., :64, :64])
    start = time.perf_counter()
    float(model(image).sum())  # waits for a GPU
    spent = time.perf_counter() - start
    return Speed(multiply_adds(model.config, (SIDE, SIDE)) / spent, _file_speed(folder))


def _file_speed(folder: Path) -> float:
    data = bytes(FILE_BYTES)
    start = time.perf_counter()
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return FILE_BYTES / (time.perf_counter() - start)
