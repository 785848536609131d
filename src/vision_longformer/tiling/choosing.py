"""Which tiles of an image a model looks at, so that its memory suffices."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from vision_longformer.memory.dense import forecast_dense_memory
from vision_longformer.padding import Size
from vision_longformer.tiling.tiles import Tile, check_overlap, cut_into_tiles
from vision_longformer.utils.system_memory import default_bound

SHARE_OF_OVERLAP = 0.25  # of the tile
LARGEST_TILE = 8192
REMEMBERED = 256  # sizes of images


class Tiling:
    """Decides for each image: whole where it fits into memory, else in tiles as large as fit.

    Args:
        model: A detector or a semantic segmentation model of this library, where it will run.
        tile: Side of the tiles in pixels, whatever memory it takes; images no larger are looked at whole. None chooses
            it by memory.
        overlap: Pixels that neighbouring tiles share; None takes a quarter of the tile. Objects no larger lie whole in
            some tile.
        memory: Bytes that one pass may take beside the model; None takes 60% of what is free now.
        limits: Context of a pass over an image or tile of (height, width), in which a detector finds as many objects
            as that may have; None where the model's own limit holds for all.

    Attributes:
        smallest: Side of the smallest tile: one position of the model's coarsest map.
        memory: Bytes.

    Raises:
        ValueError: The tile is too small or too large for the model, the overlap not smaller than the tile, or the
            memory not positive.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        tile: int | None = None,
        overlap: int | None = None,
        memory: int | None = None,
        limits: Callable[[Size], AbstractContextManager[None]] | None = None,
    ) -> None:
        backbone: Any = model.backbone
        self.model, self.tile, self.overlap = model, tile, overlap
        self.limits = limits or (lambda size: nullcontext())
        self.smallest: int = max(backbone.strides)
        fixed: Size | None = getattr(getattr(backbone, "features", None), "fixed_size", None)
        self._most = fixed  # that the model takes; None where it takes any
        if tile is not None:
            if tile < self.smallest:
                raise ValueError(
                    f"tile={tile}: must be at least {self.smallest} pixels, one position of this model's coarsest map"
                )
            if self._most is not None and tile > min(self._most):
                raise ValueError(
                    f"tile={tile}: this model is built for images of {self._most[0]}×{self._most[1]} pixels and takes "
                    f"none larger; give a tile of at most {min(self._most)}"
                )
            check_overlap(tile, self._overlap_of(tile))
        elif overlap is not None and overlap < 0:
            raise ValueError(f"overlap={overlap}: must be at least 0")
        if memory is not None and memory <= 0:
            raise ValueError(f"memory={memory}: must be a number of bytes above 0")
        if memory is None:
            memory = default_bound(next((parameter.device for parameter in model.parameters()), torch.device("cpu")))
        self.memory = memory
        self._chosen: dict[Size, int | None] = {}
        self._whole: dict[Size, bool] = {}

    def cut(self, size: Size) -> list[Tile]:
        """Return the tiles of an image of (height, width) `size`: one if it is looked at whole.

        Raises:
            ValueError: No tile fits into memory, or none is larger than the overlap; says the numbers.
        """
        side = self._side(size)
        if side is None:
            return [Tile(0, 0, *size)]
        return cut_into_tiles(size, tile=side, overlap=self._overlap_of(side))

    def forecast(self, size: Size) -> int:
        """Return about how many bytes a pass over an image or tile of (height, width) `size` takes.

        Raises:
            ValueError: It is refused as hopeless.
        """
        with self.limits(size):
            return forecast_dense_memory(self.model, size)

    @property
    def asked_for(self) -> bool:
        """Whether somebody wants tiles, or how they overlap."""
        return self.tile is not None or self.overlap is not None

    def fits_whole(self, size: Size) -> bool:
        """Return whether a pass over an image of (height, width) `size` fits into memory."""
        if size not in self._whole:
            if len(self._whole) == REMEMBERED:
                self._whole.pop(next(iter(self._whole)))
            # Where a larger image is known to fit, this one does.
            known = any(fits and size[0] <= other[0] and size[1] <= other[1] for other, fits in self._whole.items())
            self._whole[size] = known or (self._may_take(size) and self._fits(size))
        return self._whole[size]

    def _side(self, size: Size) -> int | None:
        """Return the side of the tiles of an image; None if it is looked at whole."""
        if self.tile is not None:
            return None if max(size) <= self.tile else self.tile
        if size not in self._chosen:
            if len(self._chosen) == REMEMBERED:
                self._chosen.pop(next(iter(self._chosen)))
            self._chosen[size] = self._choose(size)
        return self._chosen[size]

    def _choose(self, size: Size) -> int | None:
        if self.fits_whole(size):
            return None
        sides = [side for side in _sides(self.smallest) if side < max(size) and self._may_take((side, side))]
        if not sides or not self._fits_tile(sides[0], size):
            least = min(self.smallest, max(size))
            needed = self.forecast(_tile_size(least, size))
            raise ValueError(
                f"memory={self.memory:,}: this model needs about {needed:,} bytes for a tile of {least}×{least} "
                f"pixels, the smallest it takes, of this image of {size[1]}×{size[0]} (width×height); "
                "free some memory, or choose a smaller model"
            )
        low, high = 0, len(sides)  # sides[low] fits, sides[high] does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits_tile(sides[middle], size) else (low, middle)
        side = sides[low]
        if self.overlap is not None and self.overlap >= side:
            raise ValueError(
                f"overlap={self.overlap}: must be smaller than the tile, and memory for {self.memory:,} bytes allows "
                f"tiles of {side} pixels only; give a smaller overlap or more memory"
            )
        return side

    def _fits_tile(self, side: int, size: Size) -> bool:
        return self._fits(_tile_size(side, size))

    def _fits(self, size: Size) -> bool:
        try:
            return self.forecast(size) <= self.memory
        except ValueError:  # refused as hopeless
            return False

    def _may_take(self, size: Size) -> bool:
        return self._most is None or (size[0] <= self._most[0] and size[1] <= self._most[1])

    def _overlap_of(self, tile: int) -> int:
        return round(SHARE_OF_OVERLAP * tile) if self.overlap is None else self.overlap


def _sides(smallest: int) -> list[int]:
    """Return sides of tiles to choose from: multiples of the smallest, each at least a quarter larger than the last."""
    sides, side = [], smallest
    while side <= LARGEST_TILE:
        sides.append(side)
        side += max(smallest, side // 4 // smallest * smallest)
    return sides


def _tile_size(side: int, size: Size) -> Size:
    return min(side, size[0]), min(side, size[1])
