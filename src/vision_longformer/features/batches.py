"""Decoded images of like size in padded batches.

B images, H×W image or batch, C channels
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from vision_longformer.images import Pixels
from vision_longformer.padding import Size

Item = TypeVar("Item")

AUTO = 32  # images of a batch at most, unless a number is given
AUTO_PIXELS = AUTO * 256 * 256  # of such a batch: larger batches of larger images are no faster
PADDED = 1.25  # times the pixels of its images that a batch may have
WINDOWS = 2  # batches' worth of images among which those of like size are put together


@dataclass(frozen=True)
class PaddedBatch:
    """Normalised images in the top left corners of one tensor, as the model takes them.

    Attributes:
        images: (B, C, H, W).
        sizes: (height, width) of each image in pixels.
        valid: (B, H, W) boolean, false where a pixel is missing or beyond its image; None where none is missing.
    """

    images: Tensor
    sizes: tuple[Size, ...]
    valid: Tensor | None


def pad(
    pixels: Sequence[Pixels], *, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype, device: torch.device
) -> PaddedBatch:
    """Normalise images and put them into one batch.

    Args:
        pixels: The images.
        mean: Of each channel, for pixels in [0, 1].
        std: Standard deviation, likewise.
        dtype: Of the batch.
        device: Where it goes.
    """
    sizes = tuple((one.valid.shape[0], one.valid.shape[1]) for one in pixels)
    height, width = (max(lengths) for lengths in zip(*sizes, strict=True))
    together = torch.zeros(len(pixels), height, width, len(mean))
    as_bytes = [one.values.dtype == torch.uint8 for one in pixels]
    valid = None
    if not all(is_bytes or bool(one.valid.all()) for one, is_bytes in zip(pixels, as_bytes, strict=True)):
        valid = torch.zeros(len(pixels), height, width, dtype=torch.bool)
    for number, (one, (h, w)) in enumerate(zip(pixels, sizes, strict=True)):
        together[number, :h, :w] = one.values
        if as_bytes[number] and not all(as_bytes):
            together[number, :h, :w] /= 255
        if valid is not None:
            valid[number, :h, :w] = one.valid
    if all(as_bytes):
        together /= 255
    together = together.to(device, dtype)
    shift, scale = (
        torch.tensor(values, dtype=dtype, device=device).repeat(width) for values in (mean, std)
    )  # (W * C,)
    together.flatten(2).sub_(shift).div_(scale)  # a row at once, which is several times as fast as a pixel at once
    images = together.permute(0, 3, 1, 2)  # (B, C, H, W)
    return PaddedBatch(images, sizes, None if valid is None else valid.to(device))


def windows(items: Iterable[Item], *, most: int) -> Iterator[list[Item]]:
    """Give items in lists of `most`, the last of which may be shorter."""
    window: list[Item] = []
    for item in items:
        window.append(item)
        if len(window) == most:
            yield window
            window = []
    if window:
        yield window


def group(sizes: Sequence[Size], *, most: Callable[[Size], int]) -> list[list[int]]:
    """Put images of like size together, so that padding costs little.

    Args:
        sizes: (height, width) of each image in pixels.
        most: Gives how many images a batch of a (height, width) may have.

    Returns:
        The positions of the images of each batch. A batch has at most `PADDED` times the pixels of its images.
    """
    batches: list[list[int]] = []
    height = width = pixels = 0
    for position in sorted(range(len(sizes)), key=lambda position: sizes[position]):
        h, w = sizes[position]
        higher, wider, more = max(height, h), max(width, w), pixels + h * w
        count = len(batches[-1]) + 1 if batches else 0
        if count and count * higher * wider <= PADDED * more and count <= most((higher, wider)):
            batches[-1].append(position)
            height, width, pixels = higher, wider, more
        else:
            batches.append([position])
            height, width, pixels = h, w, h * w
    return batches
