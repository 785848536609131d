"""Normalisation, which is left to the device that computes: a byte of each value travels to it, not four.

B images of H×W pixels, C channels
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import MaybePILToTensor, MaybeToTensor
from torch import Tensor
from torchvision import transforms

from vision_longformer.utils.devices import images_on


class Colours(NamedTuple):
    """(C,) mean and deviation of each channel, in [0, 1]."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> Colours:
        """Return those of a model."""
        return cls(*(torch.as_tensor(numbers, dtype=torch.float32) for numbers in (mean, std)))


class Erased(NamedTuple):
    """A part of an image that is replaced after normalisation.

    Attributes:
        top: Of its rows.
        left: Of its columns.
        values: (C, h, w) float32.
    """

    top: int
    left: int
    values: Tensor


class StoredBatch(Protocol):
    """Images as they are stored, and how they become those of a model.

    Attributes:
        images: (B, C, H, W) bytes, or floats in [0, 1]. Where `colours` is None, they are as a model takes them.
        colours: To normalise them with.
        erased: Parts, each after the number of its image in the batch.
        sizes: (height, width) of each image, if some of them are padded below and to the right; else None.
    """

    @property
    def images(self) -> Tensor: ...
    @property
    def colours(self) -> Colours | None: ...
    @property
    def erased(self) -> Sequence[tuple[int, Erased]]: ...
    @property
    def sizes(self) -> Sequence[tuple[int, int]] | None: ...


def images_of(batch: StoredBatch, device: torch.device) -> Tensor:
    """Return the (B, C, H, W) float32 images of a batch on a device, normalised; zeros where they are padded."""
    images = images_on(device, batch.images)
    if batch.colours is None:
        return images
    if images.dtype == torch.uint8:
        images = images.float().div_(255)
    mean, std = (numbers.to(device, non_blocking=True)[:, None, None] for numbers in batch.colours)
    images = (images - mean).div_(std)
    for number, (top, left, values) in batch.erased:
        height, width = values.shape[1:]
        images[number, :, top : top + height, left : left + width] = values.to(device, non_blocking=True)
    for image, (height, width) in zip(images, batch.sizes or (), strict=False):
        image[:, height:] = 0
        image[:, :, width:] = 0
    return images


class Unnormalised:
    """A transform of timm's, without the normalisation in it.

    Args:
        transform: Of an image to a (C, H, W) tensor.

    Attributes:
        colours: Of the normalisation; None where there is none, and then the transform stays as it is.
    """

    def __init__(self, transform: Any) -> None:
        self.colours: Colours | None = None
        self._erasing: RandomErasing | None = None
        self._stored = transform
        steps = getattr(transform, "transforms", ())
        place = next((n for n, step in enumerate(steps) if isinstance(step, transforms.Normalize)), None)
        if place is None:
            return
        before, after = steps[:place], steps[place + 1 :]
        assert all(isinstance(step, RandomErasing) for step in after)
        self._erasing = after[0] if after else None
        self.colours = Colours.of(steps[place].mean, steps[place].std)
        self._stored = transforms.Compose(
            [MaybePILToTensor() if isinstance(step, MaybeToTensor) else step for step in before]
        )

    def __call__(self, image: Any) -> tuple[Tensor, Erased | None]:
        """Return a (C, H, W) image as it is stored, and what of it is to be erased."""
        stored = self._stored(image)
        return stored, None if self._erasing is None else _erased(self._erasing, stored.shape)


def _erased(erasing: RandomErasing, shape: torch.Size) -> Erased | None:
    """Return what timm puts in the place of a part of an image."""
    seen = erasing(torch.full(shape, torch.nan, dtype=torch.float32))
    rows, columns = ((~seen[0].isnan().all(dim)).nonzero().flatten() for dim in (1, 0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    return Erased(top, left, seen[:, top : int(rows[-1]) + 1, left : int(columns[-1]) + 1].clone())
