"""Small images with label images that tests write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

SIZE = (37, 53)  # (height, width)


def photograph(path: Path, *, seed: int = 0, size: tuple[int, int] = SIZE) -> None:
    """Write an image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    tifffile.imwrite(path, pixels) if path.suffix == ".tif" else Image.fromarray(pixels).save(path)


def label_image(path: Path, labels: NDArray[Any]) -> None:
    """Write an image of whole numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, labels) if path.suffix == ".tif" else Image.fromarray(labels).save(path)


def numbered(seed: int, *, size: tuple[int, int] = SIZE, objects: int = 4) -> NDArray[np.uint16]:
    """Return rectangles, each of a number of its own, with gaps between the numbers; some lie over others."""
    generator, labels = np.random.default_rng(seed), np.zeros(size, np.uint16)
    for number in range(objects):
        top, left = generator.integers(0, size[0] - 12), generator.integers(0, size[1] - 12)
        height, width = generator.integers(5, 12, 2)
        labels[top : top + height, left : left + width] = 3 + 100 * number
    return labels


def make_instances(data: Path, *, train: int = 4, val: int = 3) -> Path:
    """Write images and label images into SPLIT/images and SPLIT/masks."""
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            seed = 10 * number + (split == "val")
            photograph(data / split / "images" / f"{number}.png", seed=seed)
            label_image(data / split / "masks" / f"{number}.png", numbered(seed))
    return data
