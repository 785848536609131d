"""Stored features of one image as they are explored: standardised, and seen from the tokens of the finest stage.

H×W tokens of the finest stage, C channels of a stage
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_longformer.features.load import StoredFeatures
from vision_longformer.padding import Size
from vision_longformer.segmentation.token_grid import TILE, Array, Cache, Region, TokenGrid

SAMPLED_TILES = 24  # of each stage, evenly spread, of whose tokens mean and deviation are taken
SMALLEST_STD = 1e-6
MASK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of a stage's features: (C,) each."""

    mean: Array
    std: Array

    def __call__(self, tokens: Array) -> Array:
        """Return (n, C) features standardised."""
        found: Array = (tokens - self.mean) / self.std
        return found


class Explored:
    """The features of one image, open for questions.

    Args:
        features: From `load_features`.

    Attributes:
        features: As given.
        stages: Whose maps there are, counted from 1.
        grid: The maps.
        image_size: (height, width) in pixels.

    Raises:
        ValueError: They are of an image that was shrunk, so that its pixels are none of the file's.
    """

    def __init__(self, features: StoredFeatures) -> None:
        about = features.metadata
        if about["encoded_size"] != about["original_size"]:
            raise ValueError(
                f"the features are of {about.get('source')} shrunk to {_by(about['encoded_size'])} pixels: encode it "
                "without --max-side"
            )
        self.features, self.stages = features, features.stages
        self.grid = TokenGrid(features.maps, about["strides"])
        self.image_size: Size = tuple(about["encoded_size"])
        self._masks = Cache(MASK_BYTES)

    @cached_property
    def scalers(self) -> tuple[Scaler, ...]:
        """Mean and deviation of each stage's features."""
        return tuple(_scaler(self.grid, number) for number in range(len(self.stages)))

    def valid(self, region: Region) -> NDArray[np.bool_]:
        """Return (rows, columns): whether tokens of a region of the finest stage hold a pixel that the image has."""
        found = np.empty((region.bottom - region.top, region.right - region.left), bool)
        for row in range(region.top // TILE, -(-region.bottom // TILE)):
            for column in range(region.left // TILE, -(-region.right // TILE)):
                tile = self._masks.get((row, column), lambda row=row, column=column: self._mask(row, column))  # type: ignore[misc]
                top, left = row * TILE, column * TILE
                rows = slice(max(0, region.top - top), region.bottom - top)
                part = tile[rows, max(0, region.left - left) : region.right - left]
                y, x = max(top, region.top) - region.top, max(left, region.left) - region.left
                found[y : y + part.shape[0], x : x + part.shape[1]] = part
        return found

    def _mask(self, row: int, column: int) -> NDArray[np.bool_]:
        """Return a tile of `valid`."""
        stride, (height, width) = self.grid.stride, self.grid.size
        tokens = min(TILE, height - row * TILE), min(TILE, width - column * TILE)
        step = TILE * stride
        pixels = self.features.valid[row * step : (row + 1) * step, column * step : (column + 1) * step]
        padding = [(0, count * stride - have) for count, have in zip(tokens, pixels.shape, strict=True)]
        blocks = np.pad(pixels, padding).reshape(tokens[0], stride, tokens[1], stride)
        return np.asarray(blocks.any(axis=(1, 3)))

    def number_of(self, stage: int) -> int:
        """Return the place of a stage among those that are stored.

        Raises:
            ValueError: It is not stored.
        """
        if stage not in self.stages:
            raise ValueError(f"stage={stage}: the features hold stages {', '.join(map(str, self.stages))}")
        return self.stages.index(stage)


def as_explored(features: StoredFeatures | Explored) -> Explored:
    """Return features open for questions."""
    return features if isinstance(features, Explored) else Explored(features)


def backbone_of(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return what features must share so that a head of the ones can be used on the others."""
    return {key: metadata[key] for key in ("weights_sha256", "config_sha256", "stages", "strides", "mean", "std")}


def _scaler(grid: TokenGrid, number: int) -> Scaler:
    height, width = grid.map_size(number)
    rows, columns = -(-height // TILE), -(-width // TILE)
    chosen = np.unique(np.linspace(0, rows * columns - 1, SAMPLED_TILES).round().astype(int))
    count, total, squares = 0, np.zeros(grid.channels[number]), np.zeros(grid.channels[number])
    for place in chosen.tolist():
        tile = grid.tile(number, place // columns, place % columns)
        tokens = tile.reshape(-1, tile.shape[-1]).astype(np.float64)
        tokens = tokens[tokens.any(axis=1)]  # those that hold nothing are zero
        count += len(tokens)
        total += tokens.sum(axis=0)
        squares += (tokens**2).sum(axis=0)
    count = max(count, 1)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return Scaler(mean.astype(np.float32), np.maximum(std, SMALLEST_STD).astype(np.float32))


def _by(size: Sequence[int]) -> str:
    return f"{size[1]}×{size[0]}"
