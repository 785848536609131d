"""Windowed attention in PyTorch's own operations: linear in the number of tokens, with bounded extra memory.

B batch, H×W map, H'×W' map of keys, h heads, d head width, G global tokens, w window, n chunks, Q queries of a chunk,
K its keys, global ones included

Chunks whose neighbours are laid out alike form a region (`geometry.regions`). A region is taken in bands, chunks of
one row; each band copies its queries to (n, h, Q, d) and its neighbourhoods to (n, h, K, d), attends, and puts the
result back. So the 9-fold copy of keys and values exists for one band at a time. Chunks at the edge have fewer keys
rather than masked ones; a mask is needed only where `valid` hides a key. The backward pass gathers again.

The loop stands behind a custom operator, so that tracing sees one call whatever the size of the map. Where the fused
kernel can be used, the operator calls that instead, forward and backward. Exported models have the operator without a
loop, see `unfolded`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vision_longformer.attention.backend import attention_backend
from vision_longformer.attention.fused import fused_windowed_attention, fused_windowed_attention_backward, is_supported
from vision_longformer.attention.geometry import (
    Offset,
    Range,
    Region,
    regions,
    relative_position_index,
    within_window,
)
from vision_longformer.attention.windows import SCHEMA, Windows, check_windows, refuse_large_biases
from vision_longformer.config import WindowShape

# Keys and values gathered at once. Fewer bands cost less overhead, more of them less memory; 16 MiB measured fastest
# on two cores among 1 to 16.
BAND_BYTES = 16 * 2**20


def gathered_windowed_attention(
    query: Tensor,
    key_value: Tensor,
    global_key_value: Tensor,
    *,
    table: Tensor | None,
    global_bias: Tensor | None,
    valid: Tensor | None,
    sizes: Tensor | None = None,
    window: int,
    shape: WindowShape,
    offsets: Sequence[Offset] | Tensor,
) -> Tensor:
    """Compute `dense_windowed_attention`, whose arguments and result these are, in linear time and memory.

    `offsets` may also be an (n, 2) integer tensor, so that a random draw needs no data-dependent Python.
    """
    height, width = query.shape[1:3]
    if table is None and global_bias is not None:
        table = query.new_zeros((4 * window - 1) ** 2, query.shape[3])
    seen = valid
    if valid is not None:
        query = torch.where(valid[..., None, None], query, 0)
        key_value = torch.where(valid[..., None, None, None], key_value, 0)
    top = left = 0
    if shape == "cyclic":
        top, left = (window if -(-length // window) >= 3 else 0 for length in (height, width))
        if sizes is None:
            sizes = torch.tensor([[height, width]], device=query.device).expand(query.shape[0], -1)
        index, inside = _wrapped_positions(sizes, height, width, window=window, top=top, left=left)
        key_value = key_value.flatten(0, 2).index_select(0, index.flatten()).unflatten(0, index.shape)
        seen = inside if valid is None else inside & valid.flatten().index_select(0, index.flatten()).view(index.shape)
    offsets = offsets if isinstance(offsets, Tensor) else torch.tensor(offsets)
    of_map, of_global = (query, key_value, global_key_value), (table, global_bias)
    out: Tensor = windowed_attention(*Windows(*of_map, *of_global, seen, offsets, window, top, left, shape == "exact"))
    return out if valid is None else torch.where(valid[..., None, None], out, 0)


def _is_fused(windows: Windows) -> bool:
    return attention_backend() != "sdpa" and is_supported(windows)


def _check(windows: Windows) -> None:
    check_windows(windows)
    refuse_large_biases(windows.window, 8 * 9 * windows.window**4)  # `relative_position_index`


@torch.library.custom_op("vision_longformer::windowed_attention", mutates_args=(), schema=f"({SCHEMA}) -> Tensor")
def windowed_attention(*arguments: Any) -> Tensor:
    """Attend; the arguments are those of `Windows`."""
    windows = Windows(*arguments)
    if _is_fused(windows):
        return fused_windowed_attention(windows)
    _check(windows)
    out = torch.empty_like(windows.query, memory_format=torch.contiguous_format)
    if out.numel() == 0:
        return out
    for region, bias, _ in _regions(windows):
        for band in _bands(windows, region):
            k, v = band.gather_key_value(windows.key_value, windows.global_key_value)
            mask = band.mask(bias, windows.valid, like=k)
            result = F.scaled_dot_product_attention(band.gather_queries(windows.query), k, v, attn_mask=mask)
            band.put_queries(result, out)
    return out


@windowed_attention.register_fake
def _(query: Tensor, *_: Any) -> Tensor:
    return query.new_empty(query.shape)


@torch.library.custom_op(
    "vision_longformer::windowed_attention_backward", mutates_args=(), schema=f"(Tensor grad, {SCHEMA}) -> Tensor[]"
)
def windowed_attention_backward(grad: Tensor, *arguments: Any) -> list[Tensor]:
    """Return the gradients of the first five arguments, as far as they are given."""
    windows = Windows(*arguments)
    query, key_value, global_key_value = windows[:3]
    given = [x for x in windows[:5] if x is not None]
    if _is_fused(windows):
        fused = fused_windowed_attention_backward(grad, windows)
        return [grad.to(x.dtype) for grad, x in zip((x for x in fused if x is not None), given, strict=True)]
    _check(windows)
    accurate = torch.promote_types(query.dtype, torch.float32)  # sums over chunks and keys need more than half
    grads = [
        None if x is None else torch.zeros_like(x, dtype=accurate, memory_format=torch.contiguous_format)
        for x in windows[:5]
    ]
    grad_query, grad_key_value, grad_global_key_value, grad_table, grad_global_bias = grads
    assert grad_query is not None
    assert grad_key_value is not None
    assert grad_global_key_value is not None
    if query.numel() == 0:
        return [grad.to(x.dtype) for grad, x in zip((x for x in grads if x is not None), given, strict=True)]
    num_global, scale = global_key_value.shape[1], query.shape[-1] ** -0.5
    for region, bias, index in _regions(windows):
        for band in _bands(windows, region):
            q = band.gather_queries(query).to(accurate) * scale
            k, v = (x.to(accurate) for x in band.gather_key_value(key_value, global_key_value))
            scores = q @ k.transpose(-1, -2)  # (n, h, Q, K)
            mask = band.mask(bias, windows.valid, like=k)
            weights = (scores if mask is None else scores.add_(mask)).softmax(dim=-1)
            grad_out = band.gather_queries(grad).to(accurate)  # (n, h, Q, d)
            grad_weights = grad_out @ v.transpose(-1, -2)
            grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, accurate)
            band.put_queries(grad_scores @ k * scale, grad_query)
            gathered = torch.cat([grad_scores.transpose(-1, -2) @ q, weights.transpose(-1, -2) @ grad_out], dim=1)
            band.add_keys(gathered, grad_key_value.flatten(3, 4), grad_global_key_value.flatten(2, 3))
            if grad_global_bias is not None:
                grad_global_bias += grad_scores[..., :num_global].sum(dim=(0, 2))
            if grad_table is not None:
                rows = grad_scores[..., num_global:].sum(dim=0).permute(1, 2, 0)  # (Q, keys on the map, h)
                grad_table.index_add_(0, index.flatten(), rows.flatten(0, 1))
    return [grad.to(x.dtype) for grad, x in zip((x for x in grads if x is not None), given, strict=True)]


@windowed_attention_backward.register_fake
def _(grad: Tensor, *arguments: Any) -> list[Tensor]:
    return [x.new_empty(x.shape) for x in arguments[:5] if x is not None]


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.window, ctx.top, ctx.left, ctx.exact = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    grads = iter(windowed_attention_backward(grad, *saved, ctx.window, ctx.top, ctx.left, ctx.exact))
    differentiable = [None if x is None else next(grads) for x in saved[:5]]
    return (*differentiable, *[None] * 6)


windowed_attention.register_autograd(_backward, setup_context=_save_for_backward)


# --- biases -----------------------------------------------------------------------------------------------------


def position_bias(
    windows: Windows, queries: tuple[int, int], keys: Sequence[tuple[Range, Range]]
) -> tuple[Tensor | None, Tensor]:
    """Return what is added to the logits of a chunk, and the rows of the table that its keys on the map read.

    Args:
        windows: The call.
        queries: Rows and columns of queries in the chunk.
        keys: (rows, columns) ranges of each rectangle of keys, relative to the chunk's top left token.

    Returns:
        (h or 1, Q, K), global keys first, −inf where an exact window does not see, or None if all is 0; and an index,
        (Q, keys on the map).
    """
    query, window = windows.query, windows.window

    def of_chunk(square: Tensor) -> Tensor:
        """Cut (w², 9w²), for a whole chunk and all its neighbours, to (Q, keys on the map)."""
        square = square.view(window, window, 3 * window, 3 * window)[: queries[0], : queries[1]]
        parts = [square[:, :, slice(*_moved(rows, window)), slice(*_moved(columns, window))] for rows, columns in keys]
        return torch.cat([part.flatten(2).flatten(0, 1) for part in parts], dim=1)

    index = of_chunk(relative_position_index(window, device=query.device))
    if windows.table is None and not windows.exact:
        return None, index
    bias = query.new_zeros(1, *index.shape)
    if windows.table is not None:
        rows = windows.table.to(query.dtype).index_select(0, index.flatten())
        bias = rows.view(*index.shape, -1).permute(2, 0, 1)
    if windows.exact:
        bias = bias.masked_fill(~of_chunk(within_window(window, device=query.device)), float("-inf"))
    on_global = bias.new_zeros(1, windows.global_key_value.shape[1])
    if windows.global_bias is not None:
        on_global = windows.global_bias.to(query.dtype)
    return torch.cat([on_global[:, None].expand(bias.shape[0], index.shape[0], -1), bias], dim=2), index


def _moved(positions: Range, step: int) -> Range:
    return positions[0] + step, positions[1] + step


# --- regions and bands ------------------------------------------------------------------------------------------


def _regions(windows: Windows) -> Iterator[tuple[Region, Tensor | None, Tensor]]:
    """Yield the regions, with what `position_bias` says of each."""
    size = windows.query.shape[1], windows.query.shape[2]
    for region in regions(size, windows.window, windows.chunks, keys=windows.key_ranges):
        yield region, *position_bias(windows, (region.rows.queries, region.columns.queries), region.keys)


def _bands(windows: Windows, region: Region) -> Iterator[_Band]:
    """Take a region in bands whose gathered keys and values take at most `BAND_BYTES`, or one chunk."""
    images, _, _, heads, head_width = windows.query.shape
    keys = sum(_area(rectangle) for rectangle in region.keys)
    chunks = max(1, BAND_BYTES // (2 * keys * heads * head_width * windows.query.itemsize))
    count = min(chunks, region.columns.count)
    batch = max(1, min(chunks // count, images))
    places = range(0, images, batch), range(region.rows.count), range(0, region.columns.count, count)
    for image, row, column in itertools.product(*places):
        yield _Band(
            region=region,
            images=slice(image, min(image + batch, images)),
            start=((region.rows.first + row) * windows.window, (region.columns.first + column) * windows.window),
            count=min(count, region.columns.count - column),
            window=windows.window,
            origin=(windows.top, windows.left),
        )


@dataclass(frozen=True)
class _Band:
    """Chunks beside each other in some images, and how to copy between a map and their n = images × chunks tiles.

    Attributes:
        region: That they are in.
        images: Which.
        start: Row and column of the first chunk's first token, on the map of queries.
        count: How many chunks.
        window: Side of a chunk.
        origin: Where the first query stands in the map of keys.
    """

    region: Region
    images: slice
    start: tuple[int, int]
    count: int
    window: int
    origin: tuple[int, int]

    def _tiles(self, x: Tensor, rows: Range, columns: Range, *, origin: tuple[int, int] = (0, 0)) -> Tensor:
        """View (B, H, W, h, d) as (images, chunks, h, rows, columns, d); ranges are relative to each chunk's start."""
        top, left = self.start[0] + origin[0], self.start[1] + origin[1]
        end = left + (self.count - 1) * self.window + columns[1]
        part = x[self.images, slice(*_moved(rows, top)), left + columns[0] : end]
        return part.unfold(2, columns[1] - columns[0], self.window).permute(0, 2, 3, 1, 5, 4)

    def _query_tiles(self, x: Tensor) -> Tensor:
        return self._tiles(x, (0, self.region.rows.queries), (0, self.region.columns.queries))

    def gather_queries(self, x: Tensor) -> Tensor:
        """Copy (B, H, W, h, d) to (n, h, Q, d)."""
        return self._query_tiles(x).flatten(3, 4).flatten(0, 1)

    def put_queries(self, gathered: Tensor, x: Tensor) -> None:
        """Undo `gather_queries`."""
        target = self._query_tiles(x)
        target.copy_(gathered.reshape(target.shape))

    def gather_key_value(self, key_value: Tensor, global_key_value: Tensor) -> tuple[Tensor, Tensor]:
        """Copy (B, H', W', 2, h, d) and (B, G, 2, h, d) to keys and values of (n, h, K, d), global tokens first."""
        gathered = self.gather_keys(key_value.flatten(3, 4), global_key_value.flatten(2, 3))
        key, value = gathered.unflatten(1, (2, -1)).unbind(1)
        return key, value

    def gather_keys(self, x: Tensor, global_x: Tensor) -> Tensor:
        """Copy (B, H', W', h, d) and (B, G, h, d) to (n, h, K, d), global tokens first."""
        of_global = global_x[self.images, None, None].transpose(2, 4)  # (images, 1, h, G, 1, d)
        parts = [of_global.expand(-1, self.count, -1, -1, -1, -1)]
        parts += [self._tiles(x, *rectangle, origin=self.origin) for rectangle in self.region.keys]
        sizes = [part.shape[3] * part.shape[4] for part in parts]
        gathered = x.new_empty(*parts[0].shape[:3], sum(sizes), x.shape[-1])
        for part, target in zip(parts, gathered.split(sizes, dim=3), strict=True):
            target.unflatten(3, part.shape[3:5]).copy_(part)
        return gathered.flatten(0, 1)

    def add_keys(self, gathered: Tensor, x: Tensor, global_x: Tensor) -> None:
        """Undo `gather_keys`, adding up what overlapping neighbourhoods hold for the same key."""
        gathered = gathered.unflatten(0, (-1, self.count))  # (images, chunks, h, K, d)
        num_global = global_x.shape[1]
        global_x[self.images] += gathered[..., :num_global, :].sum(dim=1).transpose(1, 2)
        parts = gathered[..., num_global:, :].split([_area(rectangle) for rectangle in self.region.keys], dim=3)
        for (rows, columns), part in zip(self.region.keys, parts, strict=True):
            tiles = part.unflatten(3, (rows[1] - rows[0], columns[1] - columns[0]))
            # Pieces of one chunk's width: those of different chunks then do not overlap, and can be added at once.
            for left in range(*columns, self.window):
                right = min(left + self.window, columns[1])
                target = self._tiles(x, rows, (left, right), origin=self.origin)
                target += tiles[..., left - columns[0] : right - columns[0], :]

    def mask(self, bias: Tensor | None, valid: Tensor | None, *, like: Tensor) -> Tensor | None:
        """Return what to add to (n, h, Q, K) scores: the region's `bias`, and −inf where `valid` is false.

        Four axes, as fast kernels take no other.
        """
        bias = None if bias is None else bias[None]
        if valid is None:
            return bias
        everywhere = valid.new_ones(valid.shape[0], like.shape[2] - sum(map(_area, self.region.keys)), 1, 1)
        seen = self.gather_keys(valid[..., None, None], everywhere)[:, :, None, :, 0]  # (n, 1, 1, K)
        if seen.device.type == "cpu" and bool(seen.all()):  # a GPU is not asked, as that would wait for it
            return bias
        mask = torch.where(seen, like.new_zeros(1, 1, 1, 1) if bias is None else bias, float("-inf"))
        # Only a padded query can be without a key. Its output is dropped, but softmax must not see an empty row.
        return mask.masked_fill(mask.isneginf().all(dim=-1, keepdim=True), 0)


def _area(rectangle: tuple[Range, Range]) -> int:
    (top, bottom), (left, right) = rectangle
    return (bottom - top) * (right - left)


# --- maps that wrap around their edges -----------------------------------------------------------------------


def _wrapped_positions(
    sizes: Tensor, height: int, width: int, *, window: int, top: int, left: int
) -> tuple[Tensor, Tensor]:
    """Tell which position of B maps of H×W stands where, once each is continued around its own edges.

    Args:
        sizes: (B, 2) integer (height, width) of the images' own maps.
        height: H.
        width: W.
        window: Side of a chunk.
        top: Rows to add at the top, and at the bottom after the last whole chunk; 0 if that axis does not wrap.
        left: The same for columns.

    Returns:
        (B, H', W') places in the flattened (B, H, W), and whether something of the image stands there.
    """
    rows, row_inside = _wrapped_axis(sizes[:, 0], height, window=window, margin=top)
    columns, column_inside = _wrapped_axis(sizes[:, 1], width, window=window, margin=left)
    images = torch.arange(sizes.shape[0], device=sizes.device)[:, None, None]
    index = (images * height + rows[:, :, None]) * width + columns[:, None]
    return index, row_inside[:, :, None] & column_inside[:, None]


def _wrapped_axis(sizes: Tensor, length: int, *, window: int, margin: int) -> tuple[Tensor, Tensor]:
    """Do what `_wrapped_positions` does for one axis: two (B, L') tensors for (B,) sizes."""
    sizes = sizes[:, None]
    whole = -(-sizes // window) * window  # each image's chunks, the last one padded
    end = -(-length // window) * window + margin if margin else length
    position = torch.arange(-margin, end, device=sizes.device)
    wraps = whole >= 3 * window if margin else torch.zeros_like(whole, dtype=torch.bool)
    near = torch.where(wraps, position < whole + window, position >= 0)  # one chunk beyond either edge
    source = torch.where(wraps, position % whole, position)
    return source.clamp(0, length - 1), near & (source < sizes)
