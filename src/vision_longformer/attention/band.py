"""Attention of the local tokens of a band of a map, for maps that are walked from top to bottom.

B batch, H×W band, H' rows of keys, C channels, h heads, d head width, G global tokens

A band holds whole chunk rows of queries. Its keys are those rows and `halo` rows above and below them, where the map
has any.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vision_longformer.attention.banded import _windowed_attention
from vision_longformer.attention.global_only import GlobalOnlyAttention
from vision_longformer.attention.projections import QueryKeyValue
from vision_longformer.attention.windowed import WindowedAttention

STREAMABLE = "windowed attention with chunk or exact windows, and global-only attention"


class BandAttention:
    """The local tokens' attention of one layer, a band at a time.

    Args:
        layer: In evaluation mode. A windowed layer's windows may not be cyclic.
        of_global: Projected global tokens, (1, G, h, d) each.

    Attributes:
        step: Rows in a chunk row; bands begin and end at multiples of it, or at the end of the map.
        halo: Rows of keys that are needed above and below a band.

    Raises:
        ValueError: The layer's keys are not near its queries.
    """

    def __init__(self, layer: WindowedAttention | GlobalOnlyAttention, of_global: QueryKeyValue) -> None:
        self._of_global = of_global
        self._layer = layer if isinstance(layer, WindowedAttention) else None
        self.step, self.halo = 1, 0
        if isinstance(layer, WindowedAttention):
            check_streamable(layer)
            self.step = layer.window
            self.halo = 0 if layer.neighbours == "own" else layer.window
            self._offsets = layer._offsets()
            self._table = None if layer.position is None else layer.position.table
            self._global_bias = None if layer.position is None else layer.position.to_global

    def __call__(self, query: Tensor, key_value: Tensor, valid: Tensor | None, *, top: int) -> Tensor:
        """Attend.

        Args:
            query: (1, H, W, h, d), a band of whole chunk rows, or of what the map has left.
            key_value: (1, H', W, 2, h, d), from `top` rows above the band to at most `halo` rows below it.
            valid: (1, H', W) boolean for the keys; None where all are real.
            top: Rows of keys above the band: `halo`, or 0 at the top of the map.

        Returns:
            (1, H, W, h, d); without meaning where a query is not real.
        """
        if self._layer is None:
            return self._attend_to_global(query)
        out: Tensor = _windowed_attention(
            query,
            key_value,
            self._of_global.key_value,
            self._table,
            self._global_bias,
            valid,
            self._offsets,
            self._layer.window,
            top,
            0,
            self._layer.shape == "exact",
        )
        return out

    def _attend_to_global(self, query: Tensor) -> Tensor:
        flat = query.flatten(1, 2).transpose(1, 2)  # (1, h, H·W, d)
        key, value = (x.transpose(1, 2) for x in (self._of_global.key, self._of_global.value))  # (1, h, G, d)
        return F.scaled_dot_product_attention(flat, key, value).transpose(1, 2).reshape(query.shape)


def check_streamable(layer: torch.nn.Module) -> None:
    """Refuse a layer whose keys lie anywhere on the map.

    Raises:
        ValueError: Says which layers can be streamed.
    """
    if isinstance(layer, WindowedAttention):
        if layer.shape == "cyclic":
            raise ValueError(f"cyclic windows join opposite edges of the map: only {STREAMABLE} can be streamed")
    elif not isinstance(layer, GlobalOnlyAttention):
        raise ValueError(
            f"{type(layer).__name__} needs the whole map at once: only {STREAMABLE} can be streamed; for a model whose "
            "name ends in _full, take the one without it, or turn its weights with `vil convert --windowed`"
        )
