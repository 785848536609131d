"""What is real of the maps of a batch of images of different sizes, level by level.

B images, C channels, H×W map, s stride in pixels

An image of h×w pixels in a larger batch has a map of ⌈h/s⌉×⌈w/s⌉ positions of its own, at the top left. Whatever
reads around itself (a 3×3 convolution, interpolation) must find beyond that map what it finds beyond the edge when
the image is alone: zeros, or the edge again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True)
class Level:
    """One stride of a batch.

    Attributes:
        stride: Pixels per position.
        sizes: (height, width) of each image's own map.
        real: (B, 1, H, W) boolean, true where a position belongs to an image; None if all do.
    """

    stride: int
    sizes: tuple[Size, ...]
    real: Tensor | None

    def clean(self, x: Tensor) -> Tensor:
        """Return a (B, C, H, W) map with zeros at padding, whatever it held there: 0 × NaN would stay NaN."""
        return x if self.real is None else torch.where(self.real, x, 0)

    def extend(self, x: Tensor) -> Tensor:
        """Return a (B, C, H, W) map whose padding repeats the edges of each image's own map, for interpolation."""
        if self.real is None:
            return x
        last = torch.tensor(self.sizes, device=x.device) - 1  # (B, 2)
        rows = torch.arange(x.shape[2], device=x.device).minimum(last[:, :1])  # (B, H)
        columns = torch.arange(x.shape[3], device=x.device).minimum(last[:, 1:])  # (B, W)
        x = x.gather(2, rows[:, None, :, None].expand_as(x))
        return x.gather(3, columns[:, None, None, :].expand_as(x))


def build_levels(
    image_sizes: Sequence[Size], strides: Sequence[int], *, batch_size: Size, device: torch.device
) -> list[Level]:
    """Return a level for each stride.

    Args:
        image_sizes: (height, width) of each image in pixels.
        strides: Pixels per position.
        batch_size: (height, width) of the padded batch in pixels.
        device: Where the maps are.
    """
    levels = []
    for stride in strides:
        sizes = tuple(size_at(size, stride) for size in image_sizes)
        height, width = size_at(batch_size, stride)
        real = None
        if any(size != (height, width) for size in sizes):
            own = torch.tensor(sizes, device=device)
            rows = torch.arange(height, device=device) < own[:, :1]  # (B, H)
            columns = torch.arange(width, device=device) < own[:, 1:]  # (B, W)
            real = (rows[:, :, None] & columns[:, None])[:, None]
        levels.append(Level(stride, sizes, real))
    return levels


def size_at(size: Size, stride: int) -> Size:
    """Return the (height, width) of the map of an image of (height, width) `size` pixels."""
    return -(-size[0] // stride), -(-size[1] // stride)


def check_images(images: Tensor, image_sizes: Sequence[Size] | Tensor | None) -> tuple[Size, ...]:
    """Return the (height, width) of each image of a padded (B, C, H, W) batch; by default that of the batch.

    Raises:
        ValueError: There are not as many sizes as images, or one lies outside of the batch.
    """
    if images.ndim != 4 or not images.is_floating_point() or 0 in images.shape:
        raise ValueError(
            "images: expected a batch of normalised floating-point pixels, (images, channels, height, width), got "
            f"{images.dtype} of shape {tuple(images.shape)}"
        )
    batch, _, height, width = images.shape
    if image_sizes is None:
        return ((height, width),) * batch
    sizes = torch.as_tensor(image_sizes)
    if sizes.shape != (batch, 2) or sizes.is_floating_point():
        raise ValueError(
            f"image_sizes: expected {batch} pairs of integers (height, width), one for each image, "
            f"got {sizes.dtype} of shape {tuple(sizes.shape)}"
        )
    pairs = tuple((h, w) for h, w in sizes.tolist())
    for number, (h, w) in enumerate(pairs):
        if not (1 <= h <= height and 1 <= w <= width):
            raise ValueError(
                f"image_sizes[{number}]=({h}, {w}): must lie between (1, 1) and the batch's ({height}, {width})"
            )
    return pairs
