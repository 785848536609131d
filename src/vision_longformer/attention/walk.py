"""One attention layer over a map whose rows come from top to bottom, so that it is never projected as a whole.

H×W map, C channels, h heads, d head width, G global tokens, R chunk rows in a band

Each row is projected once. A ring holds the projections of a band and of its halo, one chunk row above and one below;
as soon as the halo below is there, the band attends. Local tokens see the global tokens as they entered the layer.
These gather their attention as rows come, and are updated when the last one has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from vision_longformer.attention.position import GlobalQueryBias
from vision_longformer.attention.projections import Projections, QueryKeyValue
from vision_longformer.attention.ring import Ring
from vision_longformer.attention.running_softmax import RunningSoftmax
from vision_longformer.slabs import linear_into, slabs


class WalkedLayer(Protocol):
    """What a layer shows of itself to be walked over, in evaluation mode.

    Attributes:
        projections: Its linear layers.
    """

    projections: Projections

    @property
    def step(self) -> int:
        """Rows in a chunk row; bands begin and end at multiples of it, or at the end of the map."""

    @property
    def halo(self) -> int:
        """Rows of keys that are needed above and below a band."""

    @property
    def global_query_bias(self) -> GlobalQueryBias | None:
        """Biases of the global queries."""

    def attend_band(
        self, query: Tensor, key_value: Tensor, of_global: QueryKeyValue, valid: Tensor | None, *, top: int
    ) -> Tensor:
        """Attend from whole chunk rows, or from what the map has left.

        Args:
            query: (1, n, W, h, d).
            key_value: (1, n', W, 2, h, d), from `top` rows above the band to at most `halo` rows below it.
            of_global: Projected global tokens, (1, G, h, d) each.
            valid: (1, n', W) boolean for the keys; None where all are real.
            top: Rows of keys above the band: `halo`, or 0 at the top of the map.

        Returns:
            (1, n, W, h, d); without meaning where a query is not real.
        """


class Attended(NamedTuple):
    """A band that has attended.

    Attributes:
        top: The first of its rows.
        tokens: (n, W, C), before the output projection; without meaning where not valid.
        valid: (n, W) boolean; None where all is real.
    """

    top: int
    tokens: Tensor
    valid: Tensor | None

    def part(self, rows: slice) -> Attended:
        """Return a view of some of its rows, counted from its top."""
        return Attended(self.top + rows.start, self.tokens[rows], None if self.valid is None else self.valid[rows])


def ring_bytes(size: tuple[int, int], channels: int, itemsize: int, *, band: int, halo: int) -> int:
    """Return what a walk over a map of `size` (height, width) tokens holds in its ring, for bands of `band` rows."""
    height, width = size
    return min(band + 2 * halo, height) * width * (3 * channels * itemsize + 1)


class Walk:
    """Takes one map through one layer: `project` rows while there is `room`, and `attend` until that gives None.

    Args:
        layer: In evaluation mode.
        global_tokens: (1, G, C).
        size: (height, width) of the map.
        band_rows: Chunk rows R that attend at once.
        gather: Whether anybody needs what the global tokens gather.
        norm: Applied to all tokens first.
    """

    def __init__(
        self,
        layer: WalkedLayer,
        global_tokens: Tensor,
        size: tuple[int, int],
        *,
        band_rows: int,
        gather: bool,
        norm: Callable[[Tensor], Tensor] = lambda tokens: tokens,
    ) -> None:
        self._layer, self._norm = layer, norm
        self._height, self._width = size
        self._band = band_rows * layer.step
        self._projections = layer.projections
        normed = norm(global_tokens)
        self._of_global = self._projections.split(normed)
        self._gathered: RunningSoftmax | None = None
        if gather and global_tokens.shape[1]:
            own = self._projections.qkv_global
            of_global = self._of_global if own is None else self._projections.split(normed, own)
            self._gathered = RunningSoftmax(of_global, layer.global_query_bias)
        self._like = global_tokens
        self._projected, self._real = self._rings(0)
        self._all_real = True  # so far
        self._end = 0  # rows that were projected
        self._done = 0  # rows that have attended

    def _rings(self, capacity: int) -> tuple[Ring, Ring]:
        """Return rings for projections and for what is real."""
        projected = self._like.new_empty(capacity, self._width, 3 * self._like.shape[-1])
        return Ring(projected), Ring(self._like.new_empty(capacity, self._width, dtype=torch.bool))

    @property
    def room(self) -> int:
        """Rows that can be projected before a band attends."""
        return min(self._done + self._band + self._layer.halo, self._height) - self._end

    def project(self, x: Tensor, valid: Tensor | None) -> None:
        """Take in the next (n, W, C) rows, at most `room`; (n, W) `valid` is false where they are not real."""
        if self._end == 0:
            self._projected, self._real = self._rings(min(self._band + 2 * self._layer.halo, self._height))
        count, kept = len(x), max(self._done - self._layer.halo, 0)
        real = self._real.append(count, kept)
        real.copy_(real.new_ones(()) if valid is None else valid)
        self._all_real = self._all_real and valid is None
        x, qkv = x.flatten(0, 1), self._projected.append(count, kept).flatten(0, 1)
        valid = None if valid is None else valid.flatten()
        for slab in slabs(len(x)):
            normed = self._norm(x[slab])
            linear_into(qkv[slab], self._projections.qkv, normed)
            if self._gathered is not None:
                self._gather(self._gathered, normed, qkv[slab], None if valid is None else valid[slab])
        self._end += count

    def _gather(self, gathered: RunningSoftmax, normed: Tensor, qkv: Tensor, valid: Tensor | None) -> None:
        """Let the global tokens see (n, C) normalised tokens, whose (n, 3C) projections are `qkv`."""
        own = self._projections.qkv_global
        qkv = qkv if own is None else own(normed)
        _, key, value = qkv.unflatten(-1, (3, self._projections.num_heads, -1)).unbind(1)  # (n, h, d)
        gathered.add(key, value, valid)

    def attend(self) -> Attended | None:
        """Return the next band; None before all that it sees was projected, and after the last one."""
        if self._done == self._height:
            self._projected, self._real = self._rings(0)
            return None
        if self.room:
            return None
        top, bottom, halo = self._done, min(self._done + self._band, self._height), self._layer.halo
        first, last = max(top - halo, 0), min(bottom + halo, self._height)
        real = self._real.rows(first, last)
        seen = None if self._all_real or bool(real.all()) else real
        qkv = self._projected.rows(first, last).unflatten(-1, (3, self._projections.num_heads, -1))[None]
        attended = self._layer.attend_band(
            qkv[:, top - first : bottom - first, :, 0],
            qkv[:, :, :, 1:],
            self._of_global,
            None if seen is None else seen[None],
            top=top - first,
        )
        valid = None if seen is None else seen[top - first : bottom - first].clone()
        self._done = bottom
        return Attended(top, attended.flatten(-2)[0], valid)

    def gathered(self) -> Tensor:
        """Return (1, G, C): what the global tokens gathered from everything, projected, once all rows have come."""
        assert self._gathered is not None
        assert self._end == self._height
        projection: nn.Module = self._projections.proj_global or self._projections.proj
        projected: Tensor = projection(self._gathered.result()[None])
        return projected
