"""Objects in one image of any size: looked at whole where that fits into memory, else in overlapping tiles."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vision_longformer.detection.boxes import Detections, FoundObjects, wanted
from vision_longformer.images import read_rgb
from vision_longformer.masks.box_masks import BoxMask
from vision_longformer.tiling.choosing import Tiling
from vision_longformer.tiling.merging import Parts, merge
from vision_longformer.tiling.tiles import Tile

Pixels = NDArray[np.uint8] | NDArray[np.float32]
RgbImage = str | os.PathLike[str] | Image.Image | NDArray[Any]
Report = Callable[[int, int], None]


class Detector(Protocol):
    """What finds objects: `RetinaNet` and `MaskRCNN`."""

    @property
    def config(self) -> Any:
        """Settings, among them `nms_threshold`."""

    def detect(self, images: Tensor, /) -> list[Detections]:
        """Return what is found in each image of a normalised (B, C, H, W) batch."""


def find_objects(
    model: Detector,
    image: RgbImage,
    *,
    tiling: Tiling,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | None = None,
    min_score: float = 0.0,
    classes: Collection[int] | None = None,
    detections: int | None = None,
    on_tile: Report = lambda done, total: None,
) -> FoundObjects:
    """Find the objects of an image, which is never resized.

    What a seam between tiles cuts is one object again in the result. The limit of detections holds for each tile, and
    for an image that is looked at whole; it is the model's own unless the tiling has others.

    Args:
        model: A detector in evaluation mode.
        image: A file, which is turned upright; a Pillow image; an (H, W, 3) uint8 array, RGB; or an (H, W, C) float32
            array in [0, 1], for a model of C channels.
        tiling: Which tiles to look at; one for a whole run, as it remembers what it found out.
        mean: Of the channels, whose values are from 0 to 1.
        std: Standard deviation, likewise.
        device: Where the model is; None for the CPU.
        min_score: Drop what is less certain.
        classes: Keep these class numbers only; None keeps all.
        detections: The most objects of an image in tiles; None keeps all.
        on_tile: Called after each tile with how many are done, and of how many.

    Returns:
        Boxes and masks in pixels of the image, best first. What several tiles left out of one object counts as often.

    Raises:
        ImageError: The file cannot be read.
        ValueError: The array is no image, or no tile fits into memory.
        MemoryError: There was less memory than was free before.
    """
    pixels = rgb_array(image)
    size = pixels.shape[0], pixels.shape[1]
    tiles = tiling.cut(size)
    found, left_out = [], 0
    for number, tile in enumerate(tiles):
        with memory_errors(tile), tiling.limits(tile.size):
            (in_tile,) = model.detect(normalised(pixels, tile, mean=mean, std=std, device=device))
        found.append(_parts(in_tile, tile, number, min_score=min_score, classes=classes))
        if in_tile.left_out is not None:
            left_out += in_tile.left_out.count(min_score=min_score, classes=classes)
        on_tile(number + 1, len(tiles))
    objects = merge(_joined(found), tiles, size=size, nms_threshold=model.config.nms_threshold)
    count = len(objects.boxes) if detections is None else min(detections, len(objects.boxes))
    masks = None if objects.masks is None else [mask.of_image(size) for mask in objects.masks[:count]]
    left_out += len(objects.boxes) - count
    return FoundObjects(objects.boxes[:count], objects.scores[:count], objects.labels[:count], masks, left_out)


def rgb_array(image: RgbImage) -> Pixels:
    """Return an image as (H, W, 3) uint8, RGB; an (H, W, C) float32 array as it is.

    Raises:
        ImageError: The file cannot be read.
        ValueError: The array is no such image.
    """
    if isinstance(image, str | os.PathLike):
        image = read_rgb(image)
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if image.ndim == 3 and image.dtype == np.float32 and 0 not in image.shape:
        return image
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype != np.uint8:
        raise ValueError(
            f"image: expected RGB as uint8 of shape (height, width, 3), got {image.dtype} of shape {image.shape}"
        )
    return image


def normalised(
    pixels: Pixels, tile: Tile, *, mean: Sequence[float], std: Sequence[float], device: torch.device | None
) -> Tensor:
    """Return a tile of an (H, W, C) image as a model takes it: (1, C, height, width)."""
    part = pixels[tile.top : tile.bottom, tile.left : tile.right].transpose(2, 0, 1).copy()
    values = torch.from_numpy(part).to(device).float()
    white = 255 if pixels.dtype == np.uint8 else 1
    shift, scale = (
        torch.tensor(numbers, dtype=torch.float32, device=device).view(-1, 1, 1) * white for numbers in (mean, std)
    )
    return values.sub_(shift).div_(scale)[None]


@contextlib.contextmanager
def memory_errors(tile: Tile) -> Iterator[None]:
    """Turn PyTorch's error of memory, which names no remedy, into one that does."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # of which torch.OutOfMemoryError is one
        text = str(error)
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "allocate memory" not in text:
            raise
        height, width = tile.size
        raise MemoryError(
            f"there was not enough memory for {width}×{height} (width×height) pixels at a time: choose smaller tiles"
        ) from error


def _parts(
    detections: Detections, tile: Tile, number: int, *, min_score: float, classes: Collection[int] | None
) -> Parts:
    """Return what was found in a tile, in pixels of the image."""
    scores, labels = detections.scores.cpu(), detections.labels.cpu()
    chosen = wanted(scores, labels, min_score=min_score, classes=classes)
    boxes = detections.boxes.cpu().double()[chosen].numpy()
    boxes = boxes + np.array([tile.left, tile.top, tile.left, tile.top], np.float64)
    masks = None
    if detections.masks is not None:
        probabilities = detections.masks.cpu().float()[chosen].numpy()
        masks = [BoxMask.from_probabilities(own, box) for own, box in zip(probabilities, boxes.tolist(), strict=True)]
    return Parts(
        boxes,
        scores[chosen].double().numpy(),
        labels[chosen].long().numpy(),
        np.full(len(boxes), number, np.int64),
        masks,
    )


def _joined(found: Sequence[Parts]) -> Parts:
    masks = None
    if found[0].masks is not None:
        masks = [mask for parts in found for mask in parts.masks or ()]
    return Parts(
        np.concatenate([parts.boxes for parts in found]),
        np.concatenate([parts.scores for parts in found]),
        np.concatenate([parts.labels for parts in found]),
        np.concatenate([parts.tiles for parts in found]),
        masks,
    )
