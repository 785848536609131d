"""The linear layers around attention, and the attention of global tokens, which most mechanisms share.

B batch, H×W map, N = H·W, C channels, h heads, d head width, G global tokens
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.attention.position import GlobalQueryBias


class QueryKeyValue(NamedTuple):
    """Queries (..., h, d), and keys and values side by side in one tensor, so that they are gathered together."""

    query: Tensor
    key_value: Tensor  # (..., 2, h, d)

    @property
    def key(self) -> Tensor:
        """(..., h, d)."""
        return self.key_value.select(-3, 0)

    @property
    def value(self) -> Tensor:
        """(..., h, d)."""
        return self.key_value.select(-3, 1)


class Projections(nn.Module):
    """Query, key, value and output projections, and, unless they are shared, those of the global tokens.

    With projections of their own, global queries score keys and values that `qkv_global` makes from all tokens,
    global ones included. Map queries always use `qkv`.
    """

    def __init__(self, width: int, num_heads: int, *, shared_global: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.qkv_global = None if shared_global else nn.Linear(width, 3 * width)
        self.proj_global = None if shared_global else nn.Linear(width, width)

    def split(self, tokens: Tensor, projection: nn.Linear | None = None) -> QueryKeyValue:
        """Project (..., C) `tokens` with `projection`, by default `qkv`."""
        qkv = (projection or self.qkv)(tokens).unflatten(-1, (3, self.num_heads, -1))
        query, key_value = qkv.split([1, 2], dim=-3)
        return QueryKeyValue(query.squeeze(-3), key_value)

    def attend_from_global(
        self,
        x: Tensor,
        global_tokens: Tensor,
        local: QueryKeyValue,
        local_of_global: QueryKeyValue,
        *,
        bias: GlobalQueryBias | None,
        valid: Tensor | None,
    ) -> Tensor:
        """Return (B, G, C): what the global tokens gather from everything, projected.

        `local` and `local_of_global` are what `split` makes of the map `x` and of the `global_tokens`.
        """
        on_map, on_global = local, local_of_global
        if self.qkv_global is not None:
            on_map, on_global = self.split(x, self.qkv_global), self.split(global_tokens, self.qkv_global)
        out = global_attention(
            on_global,
            on_map.key,
            on_map.value,
            map_bias=None if bias is None else bias.to_map,
            global_bias=None if bias is None else bias.to_global,
            valid=valid,
        )
        projected: Tensor = (self.proj_global or self.proj)(out.flatten(-2))
        return projected


def global_attention(
    tokens: QueryKeyValue,
    key: Tensor,
    value: Tensor,
    *,
    map_bias: Tensor | None,
    global_bias: Tensor | None,
    valid: Tensor | None,
) -> Tensor:
    """Attend from the global tokens to themselves and to the whole map.

    Args:
        tokens: (B, G, h, d) of the global tokens.
        key: (B, H, W, h, d), as is `value`.
        value: Map values.
        map_bias: (h, G) biases of each global query towards every map key, or None.
        global_bias: (h, G, G) biases from global query to global key, or None.
        valid: (B, H, W) boolean, false at padding, which is no key; None where all is real.

    Returns:
        (B, G, h, d)
    """
    num_global, head_width = tokens.query.shape[1], tokens.query.shape[3]
    key, value = key.flatten(1, 2), value.flatten(1, 2)  # (B, N, h, d)
    if valid is not None:
        real = valid.flatten(1)
        key, value = (torch.where(real[..., None, None], x, 0) for x in (key, value))
    query = tokens.query * head_width**-0.5
    map_scores = torch.einsum("bghd,bnhd->bhgn", query, key)
    global_scores = torch.einsum("bghd,bkhd->bhgk", query, tokens.key)
    if map_bias is not None:
        map_scores = map_scores + map_bias[..., None]
    if global_bias is not None:
        global_scores = global_scores + global_bias
    if valid is not None:
        map_scores = map_scores.masked_fill(~real[:, None, None], float("-inf"))
    weights = torch.cat([global_scores, map_scores], dim=-1).softmax(dim=-1).to(value.dtype)  # (B, h, G, G + N)
    on_global, on_map = weights.split([num_global, key.shape[1]], dim=-1)
    from_global = torch.einsum("bhgk,bkhd->bghd", on_global, tokens.value)
    return from_global + torch.einsum("bhgn,bnhd->bghd", on_map, value)


def padding_mask(valid: Tensor | None, num_global: int) -> Tensor | None:
    """Return a (B, 1, 1, G + N) boolean mask of the keys [global tokens | map], true where a key is real.

    An image of which nothing is real keeps all keys, so that softmax never sees an empty row.
    """
    if valid is None:
        return None
    real = F.pad(valid.flatten(1), (num_global, 0), value=True)
    return (real | ~real.any(dim=1, keepdim=True))[:, None, None]
