"""The class of every pixel from an affine map of the frozen features of several stages.

K classes, C channels of a stage, H×W tokens of the finest stage

Logits are affine in the features, so each stage gives its own on its own grid; they are interpolated and added up on
the finest one. That equals an affine map of all stages' features, interpolated and concatenated, which are never made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vision_longformer.padding import Size
from vision_longformer.segmentation.token_grid import Array, Part, Region, Summed, TokenGrid

Labels = NDArray[np.uint8]
MAX_CLASSES = 255  # one value is left for pixels that the image does not have
NO_DATA = 255
BAND = 256  # rows of tokens


@dataclass(frozen=True, eq=False)
class TokenHead:
    """An affine map of the standardised features of several stages to logits.

    Attributes:
        weights: (C, K) of each stage.
        bias: (K,).
        means: (C,) of each stage's features.
        stds: Likewise, positive.
    """

    weights: tuple[Array, ...]
    bias: Array
    means: tuple[Array, ...]
    stds: tuple[Array, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """What makes logits of the tokens of each stage, the bias in those of the first one."""
        found: list[Part] = []
        for number, (weight, mean, std) in enumerate(zip(self.weights, self.means, self.stds, strict=True)):
            scaled = (weight.astype(np.float64) / std[:, None]).astype(np.float32)
            shift = -(mean.astype(np.float64) @ (weight.astype(np.float64) / std[:, None]))
            shift += self.bias if number == 0 else 0
            found.append(partial(_affine, weight=scaled, bias=shift.astype(np.float32)))
        return tuple(found)

    def on(self, grid: TokenGrid) -> Summed:
        """Return what gives (rows, columns, K) logits of regions of an image's features.

        Raises:
            ValueError: The maps have other channels.
        """
        expected = tuple(len(weight) for weight in self.weights)
        if grid.channels != expected:
            raise ValueError(f"the features have {grid.channels} channels, the head was trained on {expected}")
        return Summed(grid, self.parts)


def _affine(tokens: Array, *, weight: Array, bias: Array) -> Array:
    found: Array = tokens @ weight + bias
    return found


def label_tokens(logits: Summed, region: Region | None = None) -> Labels:
    """Return the (rows, columns) most probable classes of a region, or of all, of the finest map."""
    top, bottom, left, right = logits.grid.whole if region is None else region
    labels = np.empty((bottom - top, right - left), np.uint8)
    for start in range(top, bottom, BAND):
        band = Region(start, min(start + BAND, bottom), left, right)
        labels[start - top : band.bottom - top] = logits(band).argmax(axis=-1)
    return labels


def margins(logits: Array) -> Array:
    """Return (...) by how much the largest of (..., K) logits exceeds the second."""
    two = np.partition(logits, -2, axis=-1)
    difference: Array = two[..., -1] - two[..., -2]
    return difference


def tokens_to_pixels(tokens: NDArray[np.generic], *, stride: int, size: Size) -> NDArray[np.generic]:
    """Return (height, width) `size` pixels, each with the value of the token of (H, W) `tokens` that it lies in."""
    rows, columns = (np.arange(length) // stride for length in size)
    return tokens[rows[:, None], columns]


def token_of(pixels: Sequence[float], *, stride: int, size: Size) -> tuple[int, int]:
    """Return the (row, column) of the token that a point (x, y) of the image lies in; the nearest one from outside."""
    x, y = pixels
    row, column = (int(np.clip(place // stride, 0, length - 1)) for place, length in zip((y, x), size, strict=True))
    return row, column
