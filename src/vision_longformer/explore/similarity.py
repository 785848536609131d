"""Where else this is: the cosine similarity of an image's features to those at points of it.

H×W tokens of the finest stage, C channels of a stage, n points
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision_longformer.explore.tokens import Explored, Scaler, as_explored
from vision_longformer.features.load import StoredFeatures
from vision_longformer.segmentation.token_grid import Array, Part, Region, Summed
from vision_longformer.segmentation.token_head import BAND, token_of

Point = tuple[float, float]  # x, y in pixels of the image
SMALLEST_NORM = 1e-12


def similar(
    features: StoredFeatures | Explored,
    point: Point | Sequence[Point],
    *,
    against: Sequence[Point] = (),
    stage: int | None = None,
) -> Array:
    """Return how alike every place of an image is to one or several of its points.

    Features are standardised for each channel; their cosine similarities to each point are averaged, and the average of
    those to the points of `against` is taken away.

    Args:
        features: From `load_features`, or open already.
        point: x and y in pixels of the image, or several such.
        against: Points that places are not to be alike.
        stage: Whose features; by default those of all that are stored, interpolated and averaged.

    Returns:
        (H, W) from −1, or −2 with points against, to 1, or 2; NaN where the image has no pixel. A token of the finest
        stored stage is a square of its stride's pixels.

    Raises:
        ValueError: There is no point, the stage is not stored, or the image was shrunk.
    """
    explored = as_explored(features)
    points = [point] if _is_point(point) else list(point)
    found = Similarity(explored, points, against=against, stage=stage)  # type: ignore[arg-type]
    return found.whole()


class Similarity:
    """The similarity to points, region by region; see `similar`."""

    def __init__(
        self, explored: Explored, points: Sequence[Point], *, against: Sequence[Point] = (), stage: int | None = None
    ) -> None:
        if not len(points):
            raise ValueError("points: give at least one to be alike")
        wanted = range(len(explored.stages)) if stage is None else [explored.number_of(stage)]
        self.explored = explored
        parts: list[Part | None] = [None] * len(explored.stages)
        for number in wanted:
            query = _directions(explored, number, points).mean(axis=0)
            if len(against):
                query = query - _directions(explored, number, against).mean(axis=0)
            parts[number] = partial(_cosine, scaler=explored.scalers[number], query=query / len(wanted))
        self._summed = Summed(explored.grid, parts)

    def __call__(self, region: Region) -> Array:
        """Return (rows, columns) similarities of a region of tokens, NaN where the image has no pixel."""
        found: Array = self._summed(region)[..., 0]
        return np.where(self.explored.valid(region), found, np.float32(np.nan))

    def whole(self) -> Array:
        """Return (H, W) similarities."""
        height, width = self.explored.grid.size
        bands = [self(Region(top, min(top + BAND, height), 0, width)) for top in range(0, height, BAND)]
        return np.concatenate(bands)


class FoundRegions(NamedTuple):
    """Regions of an image.

    Attributes:
        labels: (H, W) numbers from 1, 0 outside.
        areas: (n,) tokens of each.
    """

    labels: NDArray[np.int32]
    areas: NDArray[np.int64]

    @property
    def number(self) -> int:
        """How many there are."""
        return len(self.areas)


@dataclass(frozen=True)
class RegionOptions:
    """What is a region.

    Attributes:
        threshold: The least similarity in it.
        min_tokens: Smaller ones are left out.
    """

    threshold: float
    min_tokens: int = 1


def regions(similarity: Array, options: RegionOptions) -> FoundRegions:
    """Return the connected regions of (H, W) similarities that reach a threshold; tokens that share a side connect.

    Raises:
        ImportError: scipy is not installed.
    """
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError("regions need scipy: pip install 'vision-longformer[explore]'") from error
    with np.errstate(invalid="ignore"):
        labels, count = ndimage.label(similarity >= options.threshold)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    kept = areas >= options.min_tokens
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return FoundRegions(numbers[labels], areas[kept])


def _is_point(point: Point | Sequence[Point]) -> bool:
    return len(point) == 2 and not isinstance(point[0], Sequence | np.ndarray)


def _directions(explored: Explored, number: int, points: Sequence[Point]) -> Array:
    """Return (n, C) standardised features of a stage at points, each of length 1."""
    grid = explored.grid
    places = np.array([token_of(point, stride=grid.stride, size=grid.size) for point in points])
    tokens = explored.scalers[number](grid.at(number, places[:, 0], places[:, 1]))
    directions: Array = tokens / np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), SMALLEST_NORM)
    return directions


def _cosine(tokens: Array, *, scaler: Scaler, query: Array) -> Array:
    standard = scaler(tokens)
    lengths = np.maximum(np.linalg.norm(standard, axis=1, keepdims=True), SMALLEST_NORM)
    found: Array = standard @ query[:, None].astype(np.float32) / lengths
    return found
