"""Maps of several stages, seen together from the tokens of the finest one, region by region.

H×W tokens of the finest map, h×w tokens of any map, C channels of a map, K values

Token j of the finest map, of stride s, has its middle at position (j + 1/2) · s / S − 1/2 of a map of stride S, whose
tokens are at whole positions: what `torch.nn.functional.interpolate(mode="bilinear")` takes for it. A value there is
interpolated between four tokens; beyond the middles of the outermost tokens the map goes on as it is there.

What is computed of a region is the same part of what is computed of the whole, bit for bit: matrices are multiplied in
tiles that lie in the same places whatever is asked for, and everything else is done element by element.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vision_longformer.padding import Size

TILE = 64  # tokens of a side of a tile of any map
CACHE_BYTES = 256 * 2**20

Array = NDArray[np.float32]
Part = Callable[[Array], Array]  # (n, C) tokens of a map to (n, K) values


class Map(Protocol):
    """A (C, h, w) map that is read in parts, such as an array or `features.load.StoredArray`."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, index: Any, /) -> NDArray[Any]: ...


class Region(NamedTuple):
    """A part of the finest map: rows `top` to `bottom` and columns `left` to `right`, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int


class Cache:
    """Arrays that were made lately, up to so many bytes; threads may share it."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._arrays: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return what was made for a key, or make it."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
        made = make()
        with self._lock:
            if key not in self._arrays:
                self._arrays[key] = made
                self._held += made.nbytes
            while self._held > self._limit and len(self._arrays) > 1:
                self._held -= self._arrays.popitem(last=False)[1].nbytes
        return made


class TokenGrid:
    """Maps of several stages of one image.

    Args:
        maps: (C, h, w) of each stage.
        strides: Pixels per token of each.
        cache_bytes: What of the maps is kept in memory, as float32.

    Attributes:
        strides: As given.
        channels: Of each map.
        stride: Of the finest map.
        size: (H, W) of the finest map.

    Raises:
        ValueError: There is no map, or a stride is no multiple of the finest one.
    """

    def __init__(self, maps: Sequence[Map], strides: Sequence[int], *, cache_bytes: int = CACHE_BYTES) -> None:
        if not maps or len(maps) != len(strides):
            raise ValueError(f"maps: got {len(maps)} for {len(strides)} strides; at least one is needed, and as many")
        self._maps, self.strides = tuple(maps), tuple(strides)
        self.channels = tuple(int(map_.shape[0]) for map_ in maps)
        finest = int(np.argmin(strides))
        self.stride: int = self.strides[finest]
        if any(stride % self.stride for stride in strides):
            raise ValueError(f"strides={self.strides}: must be multiples of the finest one")
        self.size: Size = (int(maps[finest].shape[1]), int(maps[finest].shape[2]))
        self._cache = Cache(cache_bytes)

    @property
    def whole(self) -> Region:
        """All of the finest map."""
        return Region(0, self.size[0], 0, self.size[1])

    def map_size(self, number: int) -> Size:
        """Return (h, w) of a map, counted from 0."""
        return int(self._maps[number].shape[1]), int(self._maps[number].shape[2])

    def tile(self, number: int, row: int, column: int) -> Array:
        """Return a tile of a map as (h, w, C), of at most `TILE` tokens a side; row and column count tiles."""

        def read() -> Array:
            rows, columns = (slice(place * TILE, (place + 1) * TILE) for place in (row, column))
            found = self._maps[number][:, rows, columns]
            return np.ascontiguousarray(np.moveaxis(found, 0, -1), dtype=np.float32)

        return self._cache.get((number, row, column), read)

    def at(self, number: int, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> Array:
        """Return a map's (n, C) values at n tokens of the finest map, interpolated."""
        ratio = self.strides[number] // self.stride
        height, width = self.map_size(number)
        up, down, share_down = _places(rows, ratio, height)
        left, right, share_right = _places(columns, ratio, width)
        if ratio == 1:
            return self._pick(number, rows, columns)
        above, below = (
            [self._pick(number, row, column) for column in (left, right)] for row in (up, down)
        )  # each at left and right
        at_left, at_right = (
            upper + (lower - upper) * share_down[:, None] for upper, lower in zip(above, below, strict=True)
        )
        return at_left + (at_right - at_left) * share_right[:, None]

    def _pick(self, number: int, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> Array:
        """Return (n, C) tokens of a map, reading those of its tiles that are needed."""
        found = np.empty((len(rows), self.channels[number]), np.float32)
        tiles = np.stack([rows // TILE, columns // TILE], axis=1)
        for row, column in np.unique(tiles, axis=0).tolist():
            here = (tiles[:, 0] == row) & (tiles[:, 1] == column)
            found[here] = self.tile(number, row, column)[rows[here] % TILE, columns[here] % TILE]
        return found


class Summed:
    """Values on the finest map: of each map its own, interpolated and added up.

    Args:
        grid: The maps.
        parts: Of each map, what makes (n, K) values of its (n, C) tokens; None of maps that add nothing.
        cache_bytes: What is kept in memory of the values of tiles.
    """

    def __init__(self, grid: TokenGrid, parts: Sequence[Part | None], *, cache_bytes: int = CACHE_BYTES // 4) -> None:
        self.grid = grid
        self._parts = tuple(parts)
        self._cache = Cache(cache_bytes)

    def __call__(self, region: Region) -> Array:
        """Return (rows, columns, K) values of a region."""
        total: Array | None = None
        for number, part in enumerate(self._parts):
            if part is not None:
                own = self._interpolated(number, part, region)
                total = own if total is None else total + own
        assert total is not None
        return total

    def _interpolated(self, number: int, part: Part, region: Region) -> Array:
        ratio = self.grid.strides[number] // self.grid.stride
        if ratio == 1:
            return self._values(number, part, region)
        height, width = self.grid.map_size(number)
        up, down, share_down = _places(np.arange(region.top, region.bottom), ratio, height)
        left, right, share_right = _places(np.arange(region.left, region.right), ratio, width)
        top, first = int(up[0]), int(left[0])
        values = self._values(number, part, Region(top, int(down[-1]) + 1, first, int(right[-1]) + 1))
        upper = values[up - top]
        rows = upper + (values[down - top] - upper) * share_down[:, None, None]
        at_left = rows[:, left - first]
        found: Array = at_left + (rows[:, right - first] - at_left) * share_right[:, None]
        return found

    def _values(self, number: int, part: Part, region: Region) -> Array:
        """Return the values of a region of a map itself."""
        bands = []
        for row in range(region.top // TILE, -(-region.bottom // TILE)):
            tiles = []
            for column in range(region.left // TILE, -(-region.right // TILE)):
                tile = self._tile(number, part, row, column)
                rows = slice(max(0, region.top - row * TILE), region.bottom - row * TILE)
                tiles.append(tile[rows, max(0, region.left - column * TILE) : region.right - column * TILE])
            bands.append(np.concatenate(tiles, axis=1))
        return np.concatenate(bands)

    def _tile(self, number: int, part: Part, row: int, column: int) -> Array:
        def make() -> Array:
            tokens = self.grid.tile(number, row, column)  # (h, w, C)
            return part(tokens.reshape(-1, tokens.shape[-1])).reshape(*tokens.shape[:2], -1)

        return self._cache.get((number, row, column), make)


def _places(
    tokens: NDArray[np.integer], ratio: int, length: int
) -> tuple[NDArray[np.integer], NDArray[np.integer], Array]:
    """Return the two neighbours of tokens of the finest map along an axis of another, and the second one's share."""
    places = np.clip((tokens + 0.5) / ratio - 0.5, 0, length - 1)
    lower = np.floor(places).astype(np.int64)
    return lower, np.minimum(lower + 1, length - 1), (places - lower).astype(np.float32)
