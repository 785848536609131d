"""One block over a map that arrives by rows.

H×W map, C channels, h heads, d head width, G global tokens, R chunk rows in a band

Each row is normalised and projected once. A ring holds the projections of a band and of its halo, one chunk row above
and one below; as soon as the halo below is there, the band attends, and goes through the rest of the block. Local
tokens see the global tokens as they entered the block. These gather their attention as rows arrive, and are updated
when the last one has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.attention import GlobalOnlyAttention, WindowedAttention
from vision_longformer.attention.band import BandAttention
from vision_longformer.attention.position import GlobalQueryBias, RelativePositionBias
from vision_longformer.attention.projections import QueryKeyValue
from vision_longformer.backbone import MLP_TOKENS, Block
from vision_longformer.streaming.ring import Ring
from vision_longformer.streaming.rows import Rows, Stream
from vision_longformer.streaming.softmax import RunningSoftmax


class StreamedBlock:
    """Applies a block to one map.

    Args:
        block: In evaluation mode.
        global_tokens: (G, C), as they enter the block.
        size: (height, width) of the map.
        band_rows: Chunk rows R that attend at once.
        update_global: Whether anybody needs the updated global tokens.

    Attributes:
        global_tokens: (G, C); updated once the last row has passed, if `update_global`.
    """

    def __init__(
        self, block: Block, global_tokens: Tensor, size: tuple[int, int], *, band_rows: int, update_global: bool
    ) -> None:
        self.block = block
        self.global_tokens = global_tokens
        self.height, self.width = size
        self.projections = cast(WindowedAttention | GlobalOnlyAttention, block.attn).projections
        of_global = self.projections.split(block.norm1(global_tokens[None]))
        self.attention = BandAttention(cast(WindowedAttention | GlobalOnlyAttention, block.attn), of_global)
        self.band = band_rows * self.attention.step
        self.gathered = self._start_gathering(of_global) if update_global and len(global_tokens) else None
        self.ring, self.real = self._rings(0)
        self.waiting: deque[Rows] = deque()  # rows that were projected, but have not attended
        self.done = 0  # rows that have attended

    def _rings(self, capacity: int) -> tuple[Ring, Ring]:
        """Return rings for projections and for what is real."""
        like = self.global_tokens
        projected = like.new_empty(capacity, self.width, 3 * like.shape[1])
        return Ring(projected), Ring(like.new_empty(capacity, self.width, dtype=torch.bool))

    def _start_gathering(self, of_global: QueryKeyValue) -> RunningSoftmax:
        position = self.block.attn.position
        bias = position.global_queries if isinstance(position, RelativePositionBias) else position
        assert bias is None or isinstance(bias, GlobalQueryBias)
        if self.projections.qkv_global is not None:
            of_global = self.projections.split(self.block.norm1(self.global_tokens[None]), self.projections.qkv_global)
        return RunningSoftmax(of_global, bias)

    def run(self, source: Stream) -> Stream:
        """Return the transformed map as a stream that draws on `source`."""
        return Stream(source.size, self._bands(source.rows))

    def _bands(self, source: Iterator[Rows]) -> Iterator[Rows]:
        halo = self.attention.halo
        self.ring, self.real = self._rings(min(self.band + 2 * halo, self.height))
        for rows in source:
            top = rows.top
            while top < rows.bottom:
                wanted = min(self.done + self.band + halo, self.height)  # where the next band's keys end
                part = rows.part(top, min(rows.bottom, wanted))
                self._project(part)
                self.waiting.append(part)
                top = part.bottom
                while top == wanted and self.done < self.height:  # a last band may follow at once: it has no halo
                    yield self._attend()
                    wanted = min(self.done + self.band + halo, self.height)
        self._update_global()
        self.ring, self.real = self._rings(0)

    def _project(self, rows: Rows) -> None:
        """Put the queries, keys and values of rows into the ring, and let the global tokens see them."""
        kept = max(self.done - self.attention.halo, 0)
        x, qkv = rows.tokens.flatten(0, 1), self.ring.append(rows.bottom - rows.top, kept).flatten(0, 1)
        real = self.real.append(rows.bottom - rows.top, kept)
        real.copy_(real.new_ones(()) if rows.valid is None else rows.valid)
        valid = None if rows.valid is None else rows.valid.flatten()
        linear = self.projections.qkv
        for slab in _slabs(len(x)):
            normed = self.block.norm1(x[slab])
            torch.addmm(linear.bias, normed, linear.weight.t(), out=qkv[slab])
            if self.gathered is not None:
                self._gather(normed, qkv[slab], None if valid is None else valid[slab])

    def _gather(self, normed: Tensor, qkv: Tensor, valid: Tensor | None) -> None:
        """Let the global tokens see (n, C) normalised tokens, whose (n, 3C) projections are `qkv`."""
        own, channels = self.projections.qkv_global, normed.shape[-1]
        key_value = qkv[:, channels:]
        if own is not None:
            key_value = F.linear(normed, own.weight[channels:], own.bias[channels:])
        key, value = key_value.unflatten(-1, (2, self.projections.num_heads, -1)).unbind(1)  # (n, h, d)
        assert self.gathered is not None
        self.gathered.add(key, value, valid)

    def _attend(self) -> Rows:
        """Take the next band through attention and the rest of the block."""
        top, bottom = self.done, min(self.done + self.band, self.height)
        first, last = max(top - self.attention.halo, 0), min(bottom + self.attention.halo, self.height)
        seen = self.real.rows(first, last)
        everything = bool(seen.all())
        qkv = self.ring.rows(first, last).unflatten(-1, (3, self.projections.num_heads, -1))[None]
        attended = self.attention(
            qkv[:, top - first : bottom - first, :, 0],
            qkv[:, :, :, 1:],
            None if everything else seen[None],
            top=top - first,
        )
        out = self._finish(attended.flatten(-2)[0], top, bottom)
        self.done = bottom
        if everything:
            return Rows(top, out)
        valid = seen[top - first : bottom - first].clone()
        return Rows(top, out.masked_fill_(~valid[..., None], 0), valid)

    def _finish(self, attended: Tensor, top: int, bottom: int) -> Tensor:
        """Project (n, W, C) attention, add it to the band, and apply the MLP. Returns the (n, W, C) band."""
        out = torch.empty_like(attended)
        place = top
        while place < bottom:
            rows = self.waiting.popleft()
            if rows.bottom > bottom:
                self.waiting.appendleft(rows.part(bottom, rows.bottom))
                rows = rows.part(place, bottom)
            inside = slice(rows.top - top, rows.bottom - top)
            flat = [tokens.flatten(0, 1) for tokens in (rows.tokens, attended[inside], out[inside])]
            for slab in _slabs(len(flat[0])):
                self._finish_slab(*(tokens[slab] for tokens in flat))
            place = rows.bottom
        return out

    def _finish_slab(self, x: Tensor, attended: Tensor, out: Tensor) -> None:
        """Do it for (n, C) tokens, few enough to stay in cache from the first step to the last."""
        linear = self.projections.proj
        torch.addmm(linear.bias, attended, linear.weight.t(), out=out)
        out += x
        out += self.block.mlp(self.block.norm2(out))

    def _update_global(self) -> None:
        if self.gathered is None:
            return
        projection: nn.Module = self.projections.proj_global or self.projections.proj
        tokens = self.global_tokens + projection(self.gathered.result())
        self.global_tokens = tokens + self.block.mlp(self.block.norm2(tokens))


def _slabs(tokens: int) -> Iterator[slice]:
    for start in range(0, tokens, MLP_TOKENS):
        yield slice(start, min(start + MLP_TOKENS, tokens))
