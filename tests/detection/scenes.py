"""Pictures of coloured objects, and a stand-in detector that finds exactly what of them it is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vision_longformer.detection import Detections
from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.detection.tiled import find_objects
from vision_longformer.tiling.choosing import Tiling

MASK_SIDE = 28
Picture = NDArray[np.uint8]
PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def same_score(number: int, area: int) -> float:
    """Return the score of an object, whatever is seen of it."""
    return 0.5 + (number * 37 % 100) / 250


def better_in_part(number: int, area: int) -> float:
    """Return a score that falls with what is seen: a detector may well be surer of a part."""
    return 0.5 + 0.4 / (1 + area / 50)


@dataclass
class StandIn:
    """Finds every object by its colour: (class + 1, two bytes of its number)."""

    masks: bool = False
    score: Callable[[int, int], float] = same_score
    seen: list[tuple[int, int]] = field(default_factory=list)
    config: Any = field(default_factory=lambda: SimpleNamespace(nms_threshold=0.5))
    backbone: Any = field(default_factory=lambda: SimpleNamespace(strides=(4, 8)))

    def parameters(self) -> list[Tensor]:
        return []

    def detect(self, images: Tensor) -> list[Detections]:
        values = (images[0] * 255).round().int().numpy()  # (3, H, W)
        self.seen.append((values.shape[1], values.shape[2]))
        numbers = values[1] * 256 + values[2]
        boxes, scores, labels, masks = [], [], [], []
        rows, columns = np.nonzero(values[0])
        shown = numbers[rows, columns]
        by_number = np.argsort(shown, kind="stable")
        starts = np.flatnonzero(np.diff(shown[by_number], prepend=-1))
        for own in np.split(by_number, starts[1:]) if len(starts) else ():
            y, x = rows[own], columns[own]
            y1, y2, x1, x2 = int(y.min()), int(y.max()) + 1, int(x.min()), int(x.max()) + 1
            boxes.append([x1, y1, x2, y2])
            scores.append(self.score(int(shown[own[0]]), len(own)))
            labels.append(int(values[0, y[0], x[0]]) - 1)
            if self.masks:
                crop = torch.zeros(y2 - y1, x2 - x1)
                crop[y - y1, x - x1] = 1
                masks.append(F.interpolate(crop[None, None], (MASK_SIDE, MASK_SIDE), mode="bilinear")[0, 0])
        order = np.argsort(scores)[::-1].tolist()
        return [
            Detections(
                torch.tensor(np.array(boxes, np.float32).reshape(-1, 4))[order],
                torch.tensor(scores)[order],
                torch.tensor(labels, dtype=torch.int64)[order],
                torch.stack([torch.zeros(MASK_SIDE, MASK_SIDE), *masks])[1:][order] if self.masks else None,
            )
        ]


def blank(height: int, width: int) -> Picture:
    """Return a picture without objects."""
    return np.zeros((height, width, 3), np.uint8)


def paint(picture: Picture, number: int, label: int, mask: NDArray[np.bool_]) -> None:
    """Add an object, number from 1, where a mask (H, W) says."""
    picture[mask] = (label + 1, number // 256, number % 256)


def rectangle(picture: Picture, x1: int, y1: int, x2: int, y2: int) -> NDArray[np.bool_]:
    """Return the mask of a rectangle."""
    mask = np.zeros(picture.shape[:2], bool)
    mask[y1:y2, x1:x2] = True
    return mask


def disc(picture: Picture, x: float, y: float, radius: float) -> NDArray[np.bool_]:
    """Return the mask of a disc."""
    rows, columns = np.ogrid[: picture.shape[0], : picture.shape[1]]
    return np.asarray((rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2)


def find(picture: Picture, *, tile: int | None, overlap: int | None = None, **options: Any) -> FoundObjects:
    """Find the objects of a picture with the stand-in; whole if `tile` is None."""
    model: Any = StandIn(**options)
    tiling = Tiling(model, tile=tile or max(picture.shape), overlap=overlap if tile else None)
    return find_objects(model, picture, tiling=tiling, **PLAIN)


def boxes_of(found: FoundObjects) -> list[tuple[float, ...]]:
    """Return label and box of each, sorted."""
    return sorted(
        (int(label), *map(float, box)) for label, box in zip(found.labels.tolist(), found.boxes.tolist(), strict=True)
    )


def painted_boxes(picture: Picture) -> list[tuple[float, ...]]:
    """Return label and box of each object of a picture, sorted."""
    return boxes_of(find(picture, tile=None))


def mosaic(size: tuple[int, int], generator: np.random.Generator, *, smallest: int, largest: int) -> Picture:
    """Return a picture full of rectangles of two classes that touch each other on all sides."""
    picture = blank(*size)
    todo, number = [(0, 0, size[1], size[0])], 0
    while todo:
        x1, y1, x2, y2 = todo.pop()
        width, height = x2 - x1, y2 - y1
        long = max(width, height)
        if long < 2 * smallest or (long <= largest and generator.random() < 0.4):
            number += 1
            paint(picture, number, int(generator.integers(2)), rectangle(picture, x1, y1, x2, y2))
        elif width >= height:
            at = x1 + int(generator.integers(smallest, width - smallest + 1))
            todo += [(x1, y1, at, y2), (at, y1, x2, y2)]
        else:
            at = y1 + int(generator.integers(smallest, height - smallest + 1))
            todo += [(x1, y1, x2, at), (x1, at, x2, y2)]
    return picture


def discs(size: tuple[int, int], generator: np.random.Generator, *, radii: Sequence[float]) -> Picture:
    """Return a picture of discs that do not overlap, as many of these radii as find a place."""
    picture = blank(*size)
    placed: list[tuple[float, float, float]] = []
    for radius in radii:
        for _ in range(40):
            x, y = generator.uniform(0, size[1]), generator.uniform(0, size[0])
            if all(np.hypot(x - u, y - v) >= radius + r for u, v, r in placed):
                placed.append((x, y, radius))
                paint(picture, len(placed), 0, disc(picture, x, y, radius))
                break
    return picture
