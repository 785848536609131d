"""Windowed attention in plain tensor operations without a loop: what exported models compute.

B batch, H×W map of queries, H'×W' of keys, R×S chunks, h heads, d head width, G global tokens, w window, K keys of a
chunk on the map: 9w², or w² of its own

All neighbourhoods are copied at once, so keys and values take K / w² times their memory. In return nothing branches on
the size of the map, and every runtime knows the operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vision_longformer.attention.gathered import position_bias
from vision_longformer.attention.geometry import ALL
from vision_longformer.attention.windows import Windows


def unfolded_windowed_attention(*arguments: Any) -> Tensor:
    """Compute what the operator `gathered.windowed_attention` does, from the same arguments.

    The offsets have no values while a model is traced, so they are known by their number: nine are all chunks around a
    query's own, one is its own.

    Returns:
        (B, H, W, h, d), zero where a query has no key.

    Raises:
        ValueError: There are other offsets, as random shifting draws them.
    """
    windows = Windows(*arguments)
    query, key_value, global_key_value, _, _, valid, offsets, window, top, left, _ = windows
    if len(offsets) not in (1, len(ALL)):
        raise ValueError(
            f"offsets: expected a chunk's own, or all {len(ALL)} around it, got {len(offsets)}, as random shifting "
            "draws in training: call model.eval() first"
        )
    (batch, height, width, heads, _), num_global = query.shape, global_key_value.shape[1]
    chunks = ((height + window - 1) // window, (width + window - 1) // window)  # R, S
    reach = window if len(offsets) > 1 else 0  # of keys beyond their chunk
    at = [torch.arange(count, device=query.device)[:, None] * window for count in chunks]  # (R, 1) and (S, 1)
    inner, outer = (torch.arange(-r, window + r, device=query.device) for r in (0, reach))
    rows, columns = at[0] + outer + top, at[1] + outer + left  # (R, w + 2 reach) and (S, w + 2 reach) of the keys

    q = _tiles(query, at[0] + inner, at[1] + inner).flatten(0, 3)  # (n, w², d), where n is B·R·S·h
    keys, global_keys = (x.movedim(-3, 0).flatten(0, 1) for x in (key_value, global_key_value))  # 2B: and values
    on_global = global_keys.transpose(1, 2)[:, None, None].expand(-1, *chunks, -1, -1, -1)
    on_map = _tiles(keys, rows, columns)  # (2B, R, S, h, K, d)
    k, v = torch.cat([on_global, on_map], dim=4).unflatten(0, (2, batch)).flatten(1, 4).unbind(0)  # (n, G + K, d)

    inside = [(index >= 0) & (index < length) for index, length in zip((rows, columns), keys.shape[1:3], strict=True)]
    seen = (inside[0][:, None, :, None] & inside[1][:, None]).flatten(2)[None]  # (1, R, S, K)
    if valid is not None:
        seen = seen & _tiles(valid[..., None, None], rows, columns)[:, :, :, 0, :, 0]
    seen = F.pad(seen, (num_global, 0), value=True)[:, :, :, None, None]  # (B or 1, R, S, 1, 1, G + K)

    scores = torch.bmm(q * query.shape[-1] ** -0.5, k.transpose(1, 2)).view(batch, *chunks, heads, window**2, -1)
    near = (-reach, window + reach)
    bias, _ = position_bias(windows, (window, window), [(near, near)])
    scores = scores if bias is None else scores + bias
    scores = scores.masked_fill(~seen, float("-inf"))  # (B, R, S, h, w², G + K)
    weights = scores.softmax(dim=-1)
    if valid is not None:  # without it, every query on the map is a key
        weights = weights.masked_fill(scores.isneginf().all(dim=-1, keepdim=True), 0)

    out = torch.bmm(weights.flatten(0, 3), v).view(batch, *chunks, heads, window, window, -1)
    out = out.permute(0, 1, 4, 2, 5, 3, 6).flatten(3, 4).flatten(1, 2)  # of (B, R, w, S, w, h, d)
    return out[:, :height, :width]


def _tiles(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Copy a (B, H', W', h, d) map to R×S tiles.

    Args:
        x: The map.
        rows: (R, a) rows of each tile. Where one is off the map, the nearest is copied.
        columns: (S, b) columns of each tile, likewise.

    Returns:
        (B, R, S, h, a·b, d)
    """
    for axis, index in ((1, rows), (2, columns)):
        x = x.index_select(axis, index.flatten().clamp(0, x.shape[axis] - 1))
    x = x.unflatten(2, columns.shape).unflatten(1, rows.shape)
    return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5)  # of (B, R, a, S, b, h, d)
