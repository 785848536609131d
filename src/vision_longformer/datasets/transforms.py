"""Images with boxes, masks and maps of classes: resized, mirrored and cut together.

What is random is drawn first, from torch's own generator, which `utils.seeding.seed_sample` has seeded for the
image, and handed on as an `Augmentation`. The rest is arithmetic. Evaluation and prediction resize only where their
caller names a size.

Boxes are x1, y1, x2, y2 in pixels; an image W pixels wide mirrors x to W − x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_longformer.images.rasters import Raster, own_tensor, resized
from vision_longformer.masks.rle import Mask, nearest

Size = tuple[int, int]  # (height, width)


class Augmentation(NamedTuple):
    """What happens to an image, in this order.

    Attributes:
        size: (height, width) that it is resized to.
        flipped: Whether it is mirrored left to right.
        upside_down: Whether it is mirrored top to bottom.
        window: (top, left, height, width) that is then cut out of it; None for all of it.
    """

    size: Size
    flipped: bool = False
    upside_down: bool = False
    window: tuple[int, int, int, int] | None = None

    @property
    def result(self) -> Size:
        """(height, width) in the end."""
        return self.size if self.window is None else self.window[2:]

    def mirrored(self, pixels: NDArray[Any], *, row_axis: int) -> NDArray[Any]:
        """Mirror and cut an array of the resized image, whose columns follow its rows."""
        step = tuple(slice(None, None, -1 if mirror else 1) for mirror in (self.upside_down, self.flipped))
        before = (slice(None),) * row_axis
        pixels = pixels[(*before, *step)]
        if self.window is not None:
            top, left, height, width = self.window
            pixels = pixels[(*before, slice(top, top + height), slice(left, left + width))]
        return pixels


@dataclass(frozen=True, eq=False)
class DenseSample:
    """An image as a model takes it, and what is on it: N objects on H×W pixels.

    Attributes:
        image: (C, H, W), 8-bit or float32 in [0, 1].
        boxes: (N, 4) float32 x1, y1, x2, y2 in pixels.
        labels: (N,) int64.
        masks: (N, H, W) booleans; None where they are not wanted.
        semantic: (H, W) int64 classes; None where they are not wanted.
        valid: (h, w) which pixels the file has, at its own size; None where it has all, or where that is not wanted.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None
    semantic: Tensor | None = None
    valid: Mask | None = None


def fitted_size(size: Size, *, side: int, max_side: int) -> Size:
    """Return the size of an image whose shorter side becomes `side`, its longer one at most `max_side`."""
    scale = min(side / min(size), max_side / max(size))
    height, width = (max(1, min(max_side, round(length * scale))) for length in size)
    return height, width


def draw(
    size: Size,
    *,
    sides: Sequence[int] | None,
    max_side: int,
    scale: tuple[float, float] = (1.0, 1.0),
    crop: int | None = None,
    horizontal_flip: float,
    vertical_flip: float = 0.0,
) -> Augmentation:
    """Draw what happens to a training image, from torch's generator: as many numbers whatever the options.

    Args:
        size: (height, width) of the image.
        sides: One of these becomes the length of the shorter side; None keeps the image's own.
        max_side: The longer side is at most so long before `scale`, where there are `sides`.
        scale: Range of a further factor, drawn log-uniformly.
        crop: Side of the square that is cut out, where the image is larger; None leaves it whole.
        horizontal_flip: Probability of mirroring left to right.
        vertical_flip: Probability of mirroring top to bottom.
    """
    side, flip, upside_down, factor, row, column = torch.rand(6, dtype=torch.float64).tolist()
    resized = size
    if sides is not None:
        resized = fitted_size(size, side=sides[min(int(side * len(sides)), len(sides) - 1)], max_side=max_side)
    factor = scale[0] * (scale[1] / scale[0]) ** factor
    height, width = (max(1, round(length * factor)) for length in resized)
    window = None
    if crop is not None and max(height, width) > crop:
        rows, columns = min(height, crop), min(width, crop)
        window = (int(row * (height - rows + 1)), int(column * (width - columns + 1)), rows, columns)
    return Augmentation((height, width), flip < horizontal_flip, upside_down < vertical_flip, window)


def image_to_tensor(image: Raster, how: Augmentation, *, interpolation: str = "bilinear") -> Tensor:
    """Return a (C, H, W) image of the same values, resized with antialiasing, mirrored and cut out.

    Args:
        image: 8-bit RGB, or (H, W, C) float32 in [0, 1].
        how: What happens to it.
        interpolation: bilinear or bicubic.
    """
    pixels = how.mirrored(np.asarray(resized(image, how.size, interpolation)), row_axis=0)
    return own_tensor(pixels)


def transformed_boxes(boxes: NDArray[np.float32], size: Size, how: Augmentation) -> Tensor:
    """Return (N, 4) boxes of an image of `size` after what happens to it.

    Those that a window cuts reach to its edge; those outside of it have no area any more.
    """
    result = np.asarray(boxes, np.float64).reshape(-1, 4).copy()
    result[:, 0::2] *= how.size[1] / size[1]
    result[:, 1::2] *= how.size[0] / size[0]
    if how.flipped:
        result[:, 0::2] = how.size[1] - result[:, 2::-2]
    if how.upside_down:
        result[:, 1::2] = how.size[0] - result[:, 3::-2]
    if how.window is not None:
        top, left, height, width = how.window
        result[:, 0::2] = (result[:, 0::2] - left).clip(0, width)
        result[:, 1::2] = (result[:, 1::2] - top).clip(0, height)
    return torch.from_numpy(result.astype(np.float32))


def transformed_map(values: NDArray[np.generic], how: Augmentation) -> Tensor:
    """Return masks or classes (..., H, W) after what happens to their image: each pixel takes the nearest one.

    Masks that `masks.rle.segmentations_to_masks` has made in the new size are mirrored and cut only.
    """
    height, width = values.shape[-2:]
    if (height, width) != how.size:
        values = values[..., nearest(height, how.size[0])[:, None], nearest(width, how.size[1])]
    return torch.from_numpy(how.mirrored(values, row_axis=values.ndim - 2).copy())  # as in `own_tensor`


def grouped_by_orientation(order: NDArray[np.int64], sizes: NDArray[np.int32], *, batch_size: int) -> NDArray[np.int64]:
    """Return the images of an epoch so that each batch holds images of like orientation, which padding costs least.

    The result holds every image of `order` once, to be cut into batches of `batch_size`. All but one of the batches
    hold images that are wider than high, or images that are not; the one that holds both, if there is one, comes
    after the full batches, and after it only a smaller last one. It depends on nothing but its arguments, so an
    epoch's order, drawn from (seed, epoch), gives the same batches always.

    Args:
        order: (n,) images, in the order drawn.
        sizes: (N, 2) (height, width) of all images.
        batch_size: Images of a step.
    """
    waiting: tuple[list[int], list[int]] = ([], [])
    batches: list[int] = []
    for image in order.tolist():
        group = waiting[int(sizes[image, 1] > sizes[image, 0])]
        group.append(image)
        if len(group) == batch_size:
            batches += group
            group.clear()
    return np.array(batches + waiting[0] + waiting[1], np.int64)
