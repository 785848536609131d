"""Views of images: parts of many images at once, resized on whatever device holds them.

n images, S side of the stored squares, s side of a view. A stored square holds a whole image, whatever its shape, so
that boxes are (top, left, height, width) in shares of the image. Resizing is a product with two small matrices, one
for rows and one for columns: exact for any box, free of aliasing, and the same on a CPU and on a GPU.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TOGETHER = 16  # images at once: their pixels as floats stay in a CPU's cache
SUPPORT = 2.0  # of the cubic kernel, in pixels of the coarser grid


def draw_boxes(
    randoms: NDArray[np.float64],
    aspects: NDArray[np.float32],
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> NDArray[np.float32]:
    """Return (n, 4) boxes of random size, shape and place.

    Args:
        randoms: (n, 4) in [0, 1).
        aspects: (n,) width over height of the images.
        scale: Range of the share of the area.
        ratio: Range of width over height, drawn on a logarithmic scale.
    """
    area = scale[0] + randoms[:, 0] * (scale[1] - scale[0])
    shape = np.exp(np.log(ratio[0]) + randoms[:, 1] * (np.log(ratio[1]) - np.log(ratio[0]))) / aspects
    height, width = np.minimum(np.sqrt(area / shape), 1), np.minimum(np.sqrt(area * shape), 1)
    return np.stack([randoms[:, 2] * (1 - height), randoms[:, 3] * (1 - width), height, width], 1).astype(np.float32)


def centre_boxes(aspects: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (n, 4) boxes of the largest centred squares."""
    height, width = np.minimum(aspects, 1), np.minimum(1 / aspects, 1)
    return np.stack([(1 - height) / 2, (1 - width) / 2, height, width], 1).astype(np.float32)


def resample(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Return the (n, 3, s, s) parts of (n, 3, S, S) uint8 images, in [0, 1].

    Args:
        images: Stored squares.
        boxes: (n, 4).
        size: s.
    """
    parts = zip(images.split(TOGETHER), boxes.split(TOGETHER), strict=True)
    return torch.cat([_resample(*part, size) for part in parts])


def _resample(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    count, _, stored, _ = images.shape
    top, left, height, width = (boxes * stored).unbind(1)
    rows = _weights(top, height, size, stored)  # (n, s, S)
    columns = _weights(left, width, size, stored)
    halfway = rows[:, None] @ images.float()  # (n, 3, s, S)
    views = torch.bmm(halfway.view(count, 3 * size, stored), columns.transpose(1, 2))
    return views.view(count, 3, size, size).div_(255).clamp_(0, 1)


def _weights(start: Tensor, length: Tensor, size: int, stored: int) -> Tensor:
    """Return the (n, s, S) shares of stored pixels in each pixel of a part: a cubic kernel as wide as need be."""
    step = (length / size)[:, None, None]
    places = torch.arange(size, device=start.device)[None, :, None] + 0.5
    centres = start[:, None, None] + places * step - 0.5
    distance = (torch.arange(stored, device=start.device) - centres).abs_() / step.clamp(min=1)
    weights = _cubic(distance)
    return weights / weights.sum(2, keepdim=True)


def _cubic(distance: Tensor) -> Tensor:
    """Return Keys' kernel (a = −1/2, as Pillow has it) at distances from its centre."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < SUPPORT, far, 0.0))


def flip(images: Tensor, probability: float) -> Tensor:
    """Return (n, 3, s, s) images, each of them mirrored with a probability."""
    chosen = (torch.rand(len(images), 1, 1, 1) < probability).to(images.device)
    return torch.where(chosen, images.flip(3), images)


def jitter_colours(images: Tensor, strength: float) -> Tensor:
    """Return (n, 3, s, s) images in [0, 1] with brightness, contrast and saturation changed, each image in its own way.

    Args:
        images: In [0, 1].
        strength: Each of the three is multiplied by a number drawn between 1 − `strength` and 1 + `strength`.
    """
    if not strength:
        return images
    factors = 1 + strength * (2 * torch.rand(3, len(images), 1, 1, 1) - 1)
    brightness, contrast, saturation = factors.to(images.device)
    images = images * brightness
    luma = images.new_tensor([0.299, 0.587, 0.114])[None, :, None, None]
    images = torch.lerp((images * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True), images, contrast)
    return torch.lerp((images * luma).sum(1, keepdim=True), images, saturation).clamp_(0, 1)
