"""Row-wise execution: large maps in inference, embedded and taken through a block by rows.

B batch, H×W map, C channels, h heads, d head width, G global tokens, R chunk rows in a band, p patch size

Nothing but the result is then as large as the map. Each row is projected once. A row buffer holds the projections of a
band and of its halo, one chunk row above and one below; as soon as the halo below is there, the band attends, and goes
through the rest of the block, some thousand tokens at a time, so that what lies between one layer and the next stays in
cache. Local tokens see the global tokens as they entered the layer. These gather their attention as rows come, and are
updated when the last one has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vision_longformer.attention.backend import attention_backend
from vision_longformer.attention.online_softmax import OnlineSoftmax, Others
from vision_longformer.attention.position import GlobalQueryBias
from vision_longformer.attention.projections import Projections, QueryKeyValue
from vision_longformer.attention.row_buffer import RowBuffer
from vision_longformer.attention.tracing import is_hooked, is_traced
from vision_longformer.padding import Padding

# C libraries give larger tensors back to the system, and get new pages for them each time: a third of the time of a
# large map. So the queries, keys and values of a band take no more than this.
KEPT_BYTES = 32 * 2**20
EMBEDDED_BYTES = 4 * 2**20  # of patches that are embedded at once where their map is larger than that
CHUNK_TOKENS = 4096  # that go through the rest of a block at once
GPU_CHUNK_TOKENS = 2**18  # the same on GPUs, where small chunks are slow: half a gigabyte of float32 in the first stage

# Makes of (n, C) tokens, and of what attention adds to them, the tokens after the block, in the place of the latter.
Rest = Callable[[Tensor, Tensor], Tensor]


def _is_inference(x: Tensor) -> bool:
    return x.device.type == "cpu" and not (torch.is_grad_enabled() or is_traced())


# --- patch embeddings -------------------------------------------------------------------------------------------


def pays_to_embed(proj: nn.Conv2d, norm: nn.Module, x: Tensor) -> bool:
    """Tell whether the tokens of a (B, C, H, W) map of whole patches are too many to be embedded at once."""
    if not _is_inference(x) or math.prod(embedded_shape(proj, x)) * x.element_size() <= KEPT_BYTES:
        return False
    return not (is_hooked(proj) or is_hooked(norm))


def embedded_shape(proj: nn.Conv2d, x: Tensor) -> tuple[int, int, int, int]:
    """Return the shape (B, H/p, W/p, C') of the tokens of a (B, C, H, W) map."""
    batch, _, height, width = x.shape
    return batch, height // proj.stride[0], width // proj.stride[1], proj.out_channels


def embed(proj: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """Project and normalise the patches of a (B, C, H, W) map, to (B, H/p, W/p, C')."""
    patch, shape = proj.stride[0], embedded_shape(proj, x)
    out = x.new_empty(shape)
    rows = max(1, EMBEDDED_BYTES * shape[1] // (out.numel() * out.element_size()))
    for top in range(0, shape[1], rows):
        band = x[:, :, top * patch : (top + rows) * patch]
        out[:, top : top + rows] = norm(proj(band).permute(0, 2, 3, 1))
    return out


# --- token chunks -----------------------------------------------------------------------------------------------


def pays_in_chunks(block: nn.Module) -> bool:
    """Tell whether a block is in inference, and nobody looks at what is between its parts."""
    if block.training or torch.is_grad_enabled() or is_traced():
        return False
    return not any(is_hooked(part) for part in block.children())


def in_chunks(rest: Rest, x: Tensor, update: Tensor) -> Tensor:
    """Take a (B, H, W, C) map, and what attention adds to it, through the rest of a block; `update` is overwritten."""
    out = update.contiguous()  # some mechanisms return a slice; chunks are views
    before, after = x.reshape(-1, x.shape[-1]), out.flatten(0, 2)
    for chunk in _chunks(after):
        rest(before[chunk], after[chunk])
    return out


def chunk_bytes(tokens: int, channels: int, itemsize: int) -> int:
    """Return what a chunk takes in a block: normalised, 4C hidden channels, and transformed."""
    return min(tokens, CHUNK_TOKENS) * 6 * channels * itemsize


def _chunks(tokens: Tensor) -> Iterator[slice]:
    """Yield the places of (n, C) tokens, chunk by chunk."""
    size = CHUNK_TOKENS if tokens.device.type == "cpu" else GPU_CHUNK_TOKENS
    for start in range(0, len(tokens), size):
        yield slice(start, min(start + size, len(tokens)))


def _linear_into(out: Tensor, linear: nn.Module, x: Tensor) -> None:
    """Write what a linear layer makes of (n, C) `x` to (n, C') `out`; at once, unless something has replaced it."""
    if type(linear) is nn.Linear and linear.bias is not None and not is_hooked(linear):
        torch.addmm(linear.bias, x, linear.weight.t(), out=out)
    else:
        out.copy_(linear(x))


# --- attention --------------------------------------------------------------------------------------------------


@runtime_checkable
class RowwiseLayer(Protocol):
    """What a layer shows of itself for row-wise execution, in evaluation mode.

    Attributes:
        projections: Its linear layers.
    """

    projections: Projections

    @property
    def is_local(self) -> bool:
        """Whether it can go by rows: keys of a band are near it."""

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


def row_buffer_bytes(size: tuple[int, int], channels: int, itemsize: int, *, band: int, halo: int) -> int:
    """Return what the row buffer of a map of `size` (height, width) tokens holds, for bands of `band` rows."""
    height, width = size
    return min(band + 2 * halo, height) * width * (3 * channels * itemsize + 1)


class RowwiseAttention:
    """Takes one map through one layer: `project` rows while there is `room`, and `attend` until that gives None.

    Args:
        layer: In evaluation mode.
        global_tokens: (1, G, C).
        size: (height, width) of the map.
        band_rows: Chunk rows R that attend at once.
        gather: Whether anybody needs what the global tokens gather.
        norm: Applied to all tokens first.
        rows: (top, bottom) of those that attend, and that the global tokens see; all by default. They begin and end at
            a chunk row or at the end of the map. Those that come begin and end a halo above and below them.
    """

    def __init__(
        self,
        layer: RowwiseLayer,
        global_tokens: Tensor,
        size: tuple[int, int],
        *,
        band_rows: int,
        gather: bool,
        norm: Callable[[Tensor], Tensor] = lambda tokens: tokens,
        rows: tuple[int, int] | None = None,
    ) -> None:
        self._layer, self._norm = layer, norm
        height, self._width = size
        self._top, self._bottom = (0, height) if rows is None else rows
        self._first, self._last = max(self._top - layer.halo, 0), min(self._bottom + layer.halo, height)
        self._band = band_rows * layer.step
        self._projections = layer.projections
        normed = norm(global_tokens)
        self._of_global = self._projections.split(normed)
        self._gathered: OnlineSoftmax | None = None
        if gather and global_tokens.shape[1]:
            own = self._projections.qkv_global
            of_global = self._of_global if own is None else self._projections.split(normed, own)
            self._gathered = OnlineSoftmax(of_global, layer.global_query_bias)
        self._like = global_tokens
        self._projected, self._real = self._buffers(0)
        self._all_real = True  # so far
        self._end = self._first  # of the rows that were projected
        self._done = self._top  # the end of the rows that have attended

    def _buffers(self, capacity: int) -> tuple[RowBuffer, RowBuffer]:
        """Return buffers for projections and for what is real."""
        projected = self._like.new_empty(capacity, self._width, 3 * self._like.shape[-1])
        real = self._like.new_empty(capacity, self._width, dtype=torch.bool)
        return RowBuffer(projected, first=self._first), RowBuffer(real, first=self._first)

    @property
    def room(self) -> int:
        """Rows that can be projected before a band attends."""
        return min(self._done + self._band + self._layer.halo, self._last) - self._end

    def project(self, x: Tensor, valid: Tensor | None) -> None:
        """Take in the next (n, W, C) rows, at most `room`; (n, W) `valid` is false where they are not real."""
        if self._end == self._first:
            self._projected, self._real = self._buffers(
                min(self._band + 2 * self._layer.halo, self._last - self._first)
            )
        count, kept = len(x), max(self._done - self._layer.halo, 0)
        real = self._real.append(count, kept)
        real.copy_(real.new_ones(()) if valid is None else valid)
        self._all_real = self._all_real and valid is None
        x, qkv = x.flatten(0, 1), self._projected.append(count, kept).flatten(0, 1)
        valid = None if valid is None else valid.flatten()
        seen = [self._width * (row - self._end) for row in (self._top, self._bottom)]  # tokens
        for chunk in _chunks(x):
            normed = self._norm(x[chunk])
            _linear_into(qkv[chunk], self._projections.qkv, normed)
            own = slice(max(seen[0] - chunk.start, 0), max(min(seen[1], chunk.stop) - chunk.start, 0))
            if self._gathered is not None and own.start < own.stop:
                own_valid = None if valid is None else valid[chunk][own]
                self._gather(self._gathered, normed[own], qkv[chunk][own], own_valid)
        self._end += count

    def _gather(self, gathered: OnlineSoftmax, normed: Tensor, qkv: Tensor, valid: Tensor | None) -> None:
        """Let the global tokens see (n, C) normalised tokens, whose (n, 3C) projections are `qkv`."""
        own = self._projections.qkv_global
        qkv = qkv if own is None else own(normed)
        _, key, value = qkv.unflatten(-1, (3, self._projections.num_heads, -1)).unbind(1)  # (n, h, d)
        gathered.add(key, value, valid)

    def attend(self) -> Attended | None:
        """Return the next band; None before all that it sees was projected, and after the last one."""
        if self._done == self._bottom:
            self._projected, self._real = self._buffers(0)
            return None
        if self.room:
            return None
        top, bottom, halo = self._done, min(self._done + self._band, self._bottom), self._layer.halo
        first, last = max(top - halo, 0), min(bottom + halo, self._last)
        real = self._real.rows(first, last)
        # a GPU is not asked, as that would wait for it
        all_real = self._all_real or (real.device.type == "cpu" and bool(real.all()))
        seen = None if all_real else real
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

    def gathered(self, others: Others | None = None) -> Tensor:
        """Return (1, G, C): what the global tokens gathered from everything, projected, once all rows have come.

        Args:
            others: Processes that took other rows of the map, if there are any.
        """
        assert self._gathered is not None
        assert self._end == self._last or self._top == self._bottom
        if others is not None:
            self._gathered.merge(others)
        projection: nn.Module = self._projections.proj_global or self._projections.proj
        projected: Tensor = projection(self._gathered.result()[None])
        return projected


# --- blocks -----------------------------------------------------------------------------------------------------


def pays(block: nn.Module, attention: nn.Module, x: Tensor) -> bool:
    """Tell whether a (B, H, W, C) map is large enough to go through a block by rows, and nobody looks inside."""
    if not _is_inference(x) or len(x) == 0 or not is_large(x[0].numel() * x.element_size()):
        return False
    if block.training or torch.is_autocast_enabled("cpu") or attention_backend() == "dense":
        return False
    if not isinstance(attention, RowwiseLayer) or not attention.is_local:
        return False
    return not any(is_hooked(part) for part in block.children())


def attend(
    layer: RowwiseLayer, norm: nn.Module, rest: Rest, x: Tensor, global_tokens: Tensor, padding: Padding
) -> tuple[Tensor, Tensor]:
    """Take a (B, H, W, C) map and (B, G, C) global tokens through a block for which it `pays`.

    Args:
        layer: Its attention.
        norm: Applied before that.
        rest: What follows.
        x: The map.
        global_tokens: The global tokens.
        padding: What of the map is real.

    Returns:
        Both; the map is zero where nothing is real.
    """
    out, gathered = torch.empty_like(x, memory_format=torch.contiguous_format), []
    has_global = global_tokens.shape[1] > 0
    for number, image in enumerate(x):
        tokens = global_tokens[number : number + 1]
        valid = None if padding.valid is None else padding.valid[number]
        band_rows = _band_rows(image[0].numel() * x.element_size(), layer.step, layer.halo) // layer.step
        rowwise = RowwiseAttention(layer, tokens, image.shape[:2], band_rows=band_rows, gather=has_global, norm=norm)
        top = 0
        while top < len(image):
            rows = slice(top, top + rowwise.room)
            rowwise.project(image[rows], None if valid is None else valid[rows])
            top = rows.stop
            while band := rowwise.attend():
                rows = slice(band.top, band.top + len(band.tokens))
                finish(layer, rest, image[rows], band, out=out[number, rows])
        gathered.append(rowwise.gathered() if has_global else tokens)
    return out, rest(global_tokens, torch.cat(gathered))


def finish(layer: RowwiseLayer, rest: Rest, x: Tensor, attended: Attended, *, out: Tensor) -> None:
    """Take a band of (n, W, C) rows `x` that has attended through the rest of a block, to contiguous `out`."""
    flat = [tokens.flatten(0, 1) for tokens in (x, attended.tokens, out)]
    for chunk in _chunks(flat[0]):
        before, update, after = (tokens[chunk] for tokens in flat)
        _linear_into(after, layer.projections.proj, update)
        rest(before, after)
    if attended.valid is not None:
        out.masked_fill_(~attended.valid[..., None], 0)


def held_bytes(size: tuple[int, int], channels: int, itemsize: int, *, step: int, halo: int) -> int:
    """Return what `attend` holds beside one map of (height, width) `size` and the result."""
    (height, width), band = size, _band_rows(size[1] * channels * itemsize, step, halo)
    projected = row_buffer_bytes(size, channels, itemsize, band=band, halo=halo)
    tokens = min(band, height) * width
    return projected + tokens * channels * itemsize + chunk_bytes(tokens, channels, itemsize)


def is_large(map_bytes: int) -> bool:
    """Tell whether queries, keys and values of a map of so many bytes are too much to be held at once."""
    return 3 * map_bytes > KEPT_BYTES


def _band_rows(row_bytes: int, step: int, halo: int) -> int:
    """Return how many rows of a map attend at once: whole chunk rows, at least one."""
    return max((KEPT_BYTES // (3 * row_bytes) - 2 * halo) // step, 1) * step
