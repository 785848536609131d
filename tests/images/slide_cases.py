"""Slides that tests write: a pyramid in OME-TIFF, tissue of two colours on glass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

UM = 0.25  # micrometres a pixel at full resolution


def slide_pixels(height: int = 96, width: int = 192) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return (H, W, 3) pixels, and (H, W) where tissue is: pink on the left, and pale purple on the right."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(228, 240, (height, width, 1)).repeat(3, axis=2).astype(np.uint8)
    pixels[: height // 8] = generator.integers(0, 12, (height // 8, width, 3))  # a dark edge, whose noise has colours
    rows, columns = np.mgrid[:height, :width] / height
    pink = (rows - 0.55) ** 2 + (columns - 0.5) ** 2 < 0.3**2
    purple = (rows - 0.55) ** 2 + (columns - 1.5) ** 2 < 0.25**2
    pixels[pink] = np.array([220, 110, 160]) + generator.integers(-15, 15, (pink.sum(), 3))
    pixels[purple] = np.array([170, 130, 190]) + generator.integers(-15, 15, (purple.sum(), 3))
    return pixels, pink | purple


def write_slide(path: Path, pixels: NDArray[np.uint8], *, um: float = UM, levels: int = 3) -> None:
    """Write an OME-TIFF whose levels are each half of the one before."""
    metadata = {"PhysicalSizeX": um, "PhysicalSizeY": um, "axes": "YXS"}
    with tifffile.TiffWriter(path, ome=True) as file:
        options: dict[str, Any] = {"tile": (32, 32), "photometric": "rgb"}
        file.write(pixels, subifds=levels - 1, metadata=metadata, **options)
        for level in range(1, levels):
            file.write(np.ascontiguousarray(pixels[:: 2**level, :: 2**level]), subfiletype=1, **options)
