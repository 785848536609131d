"""Windowed attention, fast: linear in the number of tokens, with bounded extra memory.

B batch, H×W map, h heads, d head width, G global tokens, w window, n chunks in a band, K keys of one chunk

Chunks whose neighbours are laid out alike form a region (`geometry.regions`). A region is taken in bands of chunks;
each band copies its queries to (n, h, w², d) and its neighbourhoods to (n, h, K, d), attends, and puts the result
back. So the 9-fold copy of keys and values exists for one band at a time. Chunks at the edge have fewer keys rather
than masked ones; a mask is needed only where `valid` hides a key. The backward pass gathers again.

The loop stands behind a custom operator, so that tracing sees one call whatever the size of the map. Where the fused
kernel can be used, the operator calls that instead, forward and backward.
"""

from __future__ import annotations

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
    tiles,
    within_window,
)
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
    out: Tensor = windowed_attention(
        query,
        key_value,
        global_key_value,
        table,
        global_bias,
        seen,
        offsets if isinstance(offsets, Tensor) else torch.tensor(offsets),
        window,
        top,
        left,
        shape == "exact",
    )
    return out if valid is None else torch.where(valid[..., None, None], out, 0)


def position_bias(query: Tensor, table: Tensor | None, *, window: int, exact: bool) -> Tensor | None:
    """Return (h, w², 9w²) biases, or (1, w², 9w²) without a table, with −inf where an exact window does not see."""
    bias = None
    if table is not None:
        index = relative_position_index(window, device=query.device)
        rows = table.to(query.dtype).index_select(0, index.flatten())
        bias = rows.view(*index.shape, -1).permute(2, 0, 1)
    if exact:
        bias = query.new_zeros(1, window**2, 9 * window**2) if bias is None else bias
        bias = bias.masked_fill(~within_window(window, device=query.device), float("-inf"))
    return bias


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


@torch.library.custom_op("vision_longformer::windowed_attention", mutates_args=())
def windowed_attention(
    query: Tensor,  # (B, H, W, h, d)
    key_value: Tensor,  # (B, H', W', 2, h, d): H×W from (top, left) on, and what wraps around outside it
    global_key_value: Tensor,  # (B, G, 2, h, d)
    table: Tensor | None,  # ((4w − 1)², h)
    global_bias: Tensor | None,  # (h, G); not without a table
    valid: Tensor | None,  # (B, H', W')
    offsets: Tensor,
    window: int,
    top: int,
    left: int,
    exact: bool,
) -> Tensor:
    chunks = _chunks(offsets)
    if attention_backend() != "sdpa" and is_supported(query, chunks):
        return fused_windowed_attention(
            query,
            key_value,
            global_key_value,
            table=table,
            global_bias=global_bias,
            valid=valid,
            offsets=chunks,
            window=window,
            top=top,
            left=left,
            exact=exact,
        )
    bias = position_bias(query, table, window=window, exact=exact)
    global_bias = None if global_bias is None else global_bias.to(query.dtype)
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    for region in _regions(query, key_value, offsets, window=window, top=top, left=left):
        mask = _region_bias(region, bias, global_bias, like=global_key_value, window=window)
        for band in _bands(region, query, window=window, top=top, left=left):
            q = band.gather_queries(query)
            k, v = band.gather_key_value(key_value, global_key_value)
            result = F.scaled_dot_product_attention(q, k, v, attn_mask=band.mask(mask, valid, like=k))
            band.put_queries(result, out)
    return out


@windowed_attention.register_fake
def _(query: Tensor, *_: Any) -> Tensor:
    return query.new_empty(query.shape)


@torch.library.custom_op("vision_longformer::windowed_attention_backward", mutates_args=())
def windowed_attention_backward(
    grad: Tensor,
    query: Tensor,
    key_value: Tensor,
    global_key_value: Tensor,
    table: Tensor | None,
    global_bias: Tensor | None,
    valid: Tensor | None,
    offsets: Tensor,
    window: int,
    top: int,
    left: int,
    exact: bool,
) -> list[Tensor]:
    chunks = _chunks(offsets)
    if attention_backend() != "sdpa" and is_supported(query, chunks):
        fused = fused_windowed_attention_backward(
            grad,
            query,
            key_value,
            global_key_value,
            table=table,
            global_bias=global_bias,
            valid=valid,
            offsets=chunks,
            window=window,
            top=top,
            left=left,
            exact=exact,
        )
        inputs = (query, key_value, global_key_value, table, global_bias)
        return [grad.to(x.dtype) for grad, x in zip(fused, inputs, strict=True) if grad is not None and x is not None]
    accurate = torch.promote_types(query.dtype, torch.float32)  # sums over chunks and keys need more than half

    def zeros(x: Tensor) -> Tensor:
        return torch.zeros_like(x, dtype=accurate, memory_format=torch.contiguous_format)

    grad_query, grad_key_value, grad_global_key_value = zeros(query), zeros(key_value), zeros(global_key_value)
    bias = position_bias(query, table, window=window, exact=exact)
    grad_bias = None if bias is None else zeros(bias)
    grad_global_bias = None if global_bias is None else zeros(global_bias)
    num_global = global_key_value.shape[1]
    scale = query.shape[-1] ** -0.5

    for region in _regions(query, key_value, offsets, window=window, top=top, left=left):
        mask = _region_bias(region, bias, global_bias, like=global_key_value, window=window)
        for band in _bands(region, query, window=window, top=top, left=left):
            q = band.gather_queries(query).to(accurate) * scale
            k, v = (x.to(accurate) for x in band.gather_key_value(key_value, global_key_value))
            scores = q @ k.transpose(-1, -2)  # (n, h, queries, K)
            band_mask = band.mask(mask, valid, like=k)
            weights = (scores if band_mask is None else scores.add_(band_mask)).softmax(dim=-1)
            grad_out = band.gather_queries(grad).to(accurate)  # (n, h, queries, d)
            grad_weights = grad_out @ v.transpose(-1, -2)
            grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, accurate)
            band.put_queries(grad_scores @ k * scale, grad_query)
            gathered = torch.cat([grad_scores.transpose(-1, -2) @ q, weights.transpose(-1, -2) @ grad_out], dim=1)
            band.add_keys(gathered, grad_key_value.flatten(3, 4), grad_global_key_value.flatten(2, 3))
            if grad_global_bias is not None:
                grad_global_bias += grad_scores[..., :num_global].sum(dim=(0, 2))
            if grad_bias is not None:
                _add_region_bias(grad_scores[..., num_global:].sum(dim=0), region, grad_bias, window=window)
    grad_table = None
    if table is not None and grad_bias is not None:
        index = relative_position_index(window, device=query.device)
        rows = grad_bias.permute(1, 2, 0).flatten(0, 1)  # (w² · 9w², h)
        grad_table = zeros(table).index_add_(0, index.flatten(), rows)
    grads = zip(
        (grad_query, grad_key_value, grad_global_key_value, grad_table, grad_global_bias),
        (query, key_value, global_key_value, table, global_bias),
        strict=True,
    )
    return [grad.to(x.dtype) for grad, x in grads if grad is not None and x is not None]


@windowed_attention_backward.register_fake
def _(grad: Tensor, *inputs: Any) -> list[Tensor]:
    return [x.new_empty(x.shape) for x in inputs[:5] if x is not None]


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.window, ctx.top, ctx.left, ctx.exact = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    grads = iter(windowed_attention_backward(grad, *saved, ctx.window, ctx.top, ctx.left, ctx.exact))
    differentiable = [None if x is None else next(grads) for x in saved[:5]]
    return (*differentiable, *[None] * 6)


windowed_attention.register_autograd(_backward, setup_context=_save_for_backward)


def _regions(
    query: Tensor, key_value: Tensor, offsets: Tensor, *, window: int, top: int, left: int
) -> Iterator[Region]:
    keys = ((-top, key_value.shape[1] - top), (-left, key_value.shape[2] - left))
    return regions((query.shape[1], query.shape[2]), window, _chunks(offsets), keys=keys)


def _chunks(offsets: Tensor) -> list[Offset]:
    return [(row, column) for row, column in offsets.tolist()]


def _region_bias(
    region: Region, bias: Tensor | None, global_bias: Tensor | None, *, like: Tensor, window: int
) -> Tensor | None:
    """Return (1, h or 1, queries, K) biases of a region's queries and keys, global keys first."""
    if bias is None:
        return None
    on_map = [_rectangle_bias(bias, region, keys, window).flatten(3).flatten(1, 2) for keys in region.keys]
    if global_bias is None:
        global_bias = bias.new_zeros(bias.shape[0], like.shape[1])
    on_global = global_bias[:, None, :].expand(-1, on_map[0].shape[1], -1)
    return torch.cat([on_global, *on_map], dim=-1)[None]


def _rectangle_bias(bias: Tensor, region: Region, rectangle: tuple[Range, Range], window: int) -> Tensor:
    """View the part of (h, w², 9w²) `bias` that a region needs for one rectangle of keys.

    Returns:
        (h, query rows, query columns, key rows, key columns)
    """
    square: Tensor = bias.unflatten(2, (3 * window, 3 * window)).unflatten(1, (window, window))
    square = square[:, : region.rows.queries, : region.columns.queries]
    for axis, (begin, end) in enumerate(rectangle, start=3):
        square = square.narrow(axis, begin + window, end - begin)
    return square


def _add_region_bias(grad: Tensor, region: Region, grad_bias: Tensor, *, window: int) -> None:
    """Add (h, queries, K without globals) `grad` to the (h or 1, w², 9w²) gradient it belongs to."""
    grad = grad.sum_to_size(grad_bias.shape[0], *grad.shape[1:])
    start = 0
    for rectangle in region.keys:
        target = _rectangle_bias(grad_bias, region, rectangle, window)
        stop = start + target.shape[3] * target.shape[4]
        target += grad[..., start:stop].reshape(target.shape)
        start = stop


def _bands(region: Region, query: Tensor, *, window: int, top: int, left: int) -> Iterator[_Band]:
    """Take a region in bands whose gathered keys and values take at most `BAND_BYTES`, or one chunk."""
    images, _, _, heads, head_width = query.shape
    keys = sum((r[1] - r[0]) * (c[1] - c[0]) for r, c in region.keys)
    chunks = max(1, BAND_BYTES // (2 * keys * heads * head_width * query.itemsize))
    columns = min(chunks, region.columns.count)
    rows = min(chunks // columns, region.rows.count)
    batch = max(1, min(chunks // (rows * columns), images))
    for image in range(0, images, batch):
        for row in range(0, region.rows.count, rows):
            for column in range(0, region.columns.count, columns):
                yield _Band(
                    region=region,
                    images=(image, min(image + batch, images)),
                    rows=(region.rows.first + row, region.rows.first + min(row + rows, region.rows.count)),
                    columns=(
                        region.columns.first + column,
                        region.columns.first + min(column + columns, region.columns.count),
                    ),
                    window=window,
                    top=top,
                    left=left,
                )


@dataclass(frozen=True)
class _Band:
    """Some images' chunks of one region, and how to copy between a map and their n = images × rows × columns tiles."""

    region: Region
    images: Range
    rows: Range
    columns: Range
    window: int
    top: int
    left: int

    @property
    def _shape(self) -> tuple[int, int]:
        """Rows and columns of chunks."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    def _tiles(self, x: Tensor, inside: tuple[Range, Range], *, top: int = 0, left: int = 0) -> Tensor:
        """View (B, H, W, h, d) as (images, rows, columns, h, tile height, tile width, d)."""
        (row_begin, row_end), (column_begin, column_end) = inside
        inside = ((row_begin + top, row_end + top), (column_begin + left, column_end + left))
        images = x[slice(*self.images)]
        return tiles(images, chunks=(self.rows, self.columns), window=self.window, inside=inside)

    def _query_tiles(self, x: Tensor) -> Tensor:
        return self._tiles(x, ((0, self.region.rows.queries), (0, self.region.columns.queries)))

    def gather_queries(self, x: Tensor) -> Tensor:
        """Copy (B, H, W, h, d) to (n, h, queries, d)."""
        return self._query_tiles(x).flatten(0, 2).flatten(2, 3)

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
        parts = [self._global_tiles(global_x)]
        parts += [self._tiles(x, inside, top=self.top, left=self.left) for inside in self.region.keys]
        images, rows, columns, heads = parts[0].shape[:4]
        sizes = [part.shape[4] * part.shape[5] for part in parts]
        gathered = x.new_empty(images, rows, columns, heads, sum(sizes), x.shape[-1])
        for part, target in zip(parts, gathered.split(sizes, dim=4), strict=True):
            target.unflatten(4, part.shape[4:6]).copy_(part)
        return gathered.flatten(0, 2)

    def _global_tiles(self, global_x: Tensor) -> Tensor:
        """View (B, G, h, d) as (images, rows, columns, h, 1, G, d)."""
        first, stop = self.images
        batch, token, head, channel = global_x.stride()
        return global_x.as_strided(
            (stop - first, *self._shape, global_x.shape[2], 1, global_x.shape[1], global_x.shape[3]),
            (batch, 0, 0, head, 0, token, channel),
            global_x.storage_offset() + first * batch,
        )

    def add_keys(self, gathered: Tensor, x: Tensor, global_x: Tensor) -> None:
        """Undo `gather_keys`, adding up what overlapping neighbourhoods hold for the same key."""
        shape = (self.images, self.rows, self.columns)
        gathered = gathered.unflatten(0, [stop - start for start, stop in shape])  # (images, rows, columns, h, K, d)
        start = global_x.shape[1]
        global_x[slice(*self.images)] += gathered[..., :start, :].sum(dim=(1, 2)).transpose(1, 2)
        for rows, columns in self.region.keys:
            stop = start + (rows[1] - rows[0]) * (columns[1] - columns[0])
            tile = gathered[..., start:stop, :].unflatten(4, (rows[1] - rows[0], columns[1] - columns[0]))
            start = stop
            # Pieces of one chunk's size: tiles of different chunks then do not overlap, and can be added at once.
            for row in range(rows[0], rows[1], self.window):
                for column in range(columns[0], columns[1], self.window):
                    piece = (
                        (row, min(row + self.window, rows[1])),
                        (column, min(column + self.window, columns[1])),
                    )
                    (r0, r1), (c0, c1) = piece
                    target = self._tiles(x, piece, top=self.top, left=self.left)
                    target += tile[..., r0 - rows[0] : r1 - rows[0], c0 - columns[0] : c1 - columns[0], :]

    def mask(self, bias: Tensor | None, valid: Tensor | None, *, like: Tensor) -> Tensor | None:
        """Return what to add to (n, h, queries, K) scores: the region's `bias`, and −inf where `valid` is false.

        Four axes, as fast kernels take no other.
        """
        if valid is None:
            return bias
        everywhere = valid.new_ones(valid.shape[0], like.shape[2] - sum(_area(keys) for keys in self.region.keys), 1, 1)
        seen = self.gather_keys(valid[..., None, None], everywhere)[:, :, None, :, 0]  # (n, 1, 1, K)
        if seen.all():
            return bias
        mask = torch.where(seen, like.new_zeros(1, 1, 1, 1) if bias is None else bias, float("-inf"))
        # Only a padded query can be without a key. Its output is dropped, but softmax must not see an empty row.
        return mask.masked_fill(mask.isneginf().all(dim=-1, keepdim=True), 0)


def _area(rectangle: tuple[Range, Range]) -> int:
    (top, bottom), (left, right) = rectangle
    return (bottom - top) * (right - left)
