"""Windowed attention in its plainest form: all scores of the map, and a mask. The oracle of every fast path.

B batch, H×W map, N = H·W tokens, h heads, d head width, G global tokens, w window
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vision_longformer.attention.geometry import Offset
from vision_longformer.config import WindowShape


def dense_windowed_attention(
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
    """Attend from every map token to the global tokens and to the chunks around its own (paper, section 3.1).

    Args:
        query: (B, H, W, h, d).
        key_value: (B, H, W, 2, h, d) keys and values of the map.
        global_key_value: (B, G, 2, h, d) keys and values of the global tokens.
        table: ((4w − 1)², h) biases by relative position, or None.
        global_bias: (h, G) biases of the map queries towards each global key, or None.
        valid: (B, H, W) boolean, false at padding, which is no key and gets zeros, and so outside `sizes`; None
            where all is real.
        sizes: (B, 2) integer (height, width) of each image's own map, around whose edges its chunks wrap where they
            are cyclic; None where all fill H×W.
        window: Side w of a chunk in tokens.
        shape: Which keys of the chunks in `offsets` count, and whether the chunks wrap.
        offsets: (row, column) of the chunks seen, in chunks, relative to a token's own; or an (n, 2) integer tensor.

    Returns:
        (B, H, W, h, d), in memory and time quadratic in H·W.
    """
    height, width, head_width = query.shape[1], query.shape[2], query.shape[4]
    if sizes is None:
        sizes = torch.tensor([[height, width]], device=query.device)
    rows = _axis(sizes[:, 0], height, window, cyclic=shape == "cyclic")  # (B or 1, H, H)
    columns = _axis(sizes[:, 1], width, window, cyclic=shape == "cyclic")
    row_chunk, row_step = (x[:, :, None, :, None].expand(-1, -1, width, -1, width) for x in rows)
    column_chunk, column_step = (x[:, None, :, None, :].expand(-1, height, -1, height, -1) for x in columns)

    visible = torch.zeros_like(row_chunk, dtype=torch.bool)  # (B or 1, H, W, H, W): image, query, key
    for row, column in offsets:
        visible |= (row_chunk == row) & (column_chunk == column)
    if shape == "exact":
        visible &= (row_step.abs() <= window) & (column_step.abs() <= window)
    visible = visible.flatten(3).flatten(1, 2)  # (B or 1, N, N)

    q, k, v = (x.flatten(1, 2) for x in (query, *key_value.unbind(3)))  # (B, N, h, d)
    global_key, global_value = global_key_value.unbind(2)  # (B, G, h, d)
    if valid is not None:
        real = valid.flatten(1)  # (B, N)
        q, k, v = (torch.where(real[..., None, None], x, 0) for x in (q, k, v))
        visible = visible & real[:, None, :] | ~real[:, :, None]  # padded queries see all: their rows are dropped
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * head_width**-0.5
    if table is not None:
        reach = 2 * window - 1
        index = (row_step + reach) * (4 * window - 1) + column_step + reach
        index = index.flatten(3).flatten(1, 2).clamp(0, table.shape[0] - 1)  # invisible pairs reach further
        bias = table.index_select(0, index.flatten()).unflatten(0, index.shape)  # (B or 1, N, N, h)
        scores = scores + bias.permute(0, 3, 1, 2)
    scores = scores.masked_fill(~visible[:, None], float("-inf"))
    global_scores = torch.einsum("bqhd,bghd->bhqg", q, global_key) * head_width**-0.5
    if global_bias is not None:
        global_scores = global_scores + global_bias[:, None, :]

    weights = torch.cat([global_scores, scores], dim=3).softmax(dim=3)  # (B, h, N, G + N)
    out = torch.einsum("bhqk,bkhd->bqhd", weights, torch.cat([global_value, v], dim=1))
    if valid is not None:
        out = torch.where(real[..., None, None], out, 0)
    return out.reshape(query.shape)


def _axis(sizes: Tensor, length: int, window: int, *, cyclic: bool) -> tuple[Tensor, Tensor]:
    """Return chunk offsets of key from query along one axis, and steps query − key, both unwrapped.

    Both are (B, L, L) for the (B,) sizes of the images' own maps along this axis.
    """
    position = torch.arange(length, device=sizes.device)
    chunk = position // window
    offset = (chunk[None, :] - chunk[:, None]).expand(sizes.shape[0], -1, -1)
    step = (position[:, None] - position[None, :]).expand(sizes.shape[0], -1, -1)
    if cyclic:
        chunks = -(-sizes // window)[:, None, None]
        # The first and last chunk are neighbours; with fewer than three chunks a key would count twice.
        turns = ((offset == 1 - chunks).long() - (offset == chunks - 1).long()) * (chunks >= 3)
        offset = offset + turns * chunks
        step = step - turns * chunks * window
    return offset, step
