"""Ordinary attention over all tokens, with the published code's relative position bias.

B batch, H×W map, N = H·W tokens, C channels, h heads, d head width, G global tokens

The bias table has ((2H − 1)(2W − 1), h) entries for the H×W it was trained at, row (Δr + H − 1)(2W − 1) + (Δc + W − 1)
with Δ = query − key position. For other maps it is resized bilinearly. Queries are taken in bands of rows, so that
the N×N bias never exists at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vision_longformer.attention.limits import refuse_hopeless
from vision_longformer.attention.position import RelativePositionBias, interpolate
from vision_longformer.attention.projections import Projections, padding_mask
from vision_longformer.attention.tracing import is_traced
from vision_longformer.padding import UNPADDED, Padding

BAND_BYTES = 256 * 2**20  # of bias, and of scores where those are kept, at once


class FullAttention(nn.Module):
    """Every token attends to every token.

    Attributes:
        grid: (height, width) in tokens that the bias table is sized for.
    """

    def __init__(
        self, *, width: int, num_heads: int, num_global_tokens: int, relative_position: bool, grid: tuple[int, int]
    ) -> None:
        super().__init__()
        self.grid = grid
        self.projections = Projections(width, num_heads)
        self.position = None
        if relative_position:
            rows = (2 * grid[0] - 1) * (2 * grid[1] - 1)
            self.position = RelativePositionBias(rows, num_heads, num_global_tokens=num_global_tokens)

    def forward(self, x: Tensor, global_tokens: Tensor, padding: Padding = UNPADDED) -> tuple[Tensor, Tensor]:
        """Attend from and to a (B, H, W, C) map and (B, G, C) global tokens; return both. Padding is no key.

        Raises:
            ValueError: The map is so large that one layer would take minutes.
        """
        height, width, channels = x.shape[1:]
        cost = 2 * channels * (height * width) ** 2
        refuse_hopeless("full attention", height=height, width=width, multiply_adds=cost)
        x, valid = padding.clean(x), padding.valid
        local, of_global = self.projections.split(x), self.projections.split(global_tokens)
        key = torch.cat([of_global.key, local.key.flatten(1, 2)], dim=1).transpose(1, 2)  # (B, h, G + N, d)
        value = torch.cat([of_global.value, local.value.flatten(1, 2)], dim=1).transpose(1, 2)
        mask = padding_mask(valid, global_tokens.shape[1])
        table = self._resized_table(height, width, padding)

        out = self.projections.proj(self._attend(local.query, key, value, table, mask))
        if global_tokens.shape[1] == 0:
            return out, global_tokens
        bias = None if self.position is None else self.position.global_queries
        return out, self.projections.attend_from_global(x, global_tokens, local, of_global, bias=bias, valid=valid)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, table: Tensor | None, mask: Tensor | None) -> Tensor:
        """Attend from (B, H, W, h, d) queries in bands of rows; return (B, H, W, C)."""
        batch, height, width, heads, _ = query.shape
        if is_traced():  # a loop would be traced for one height only
            return self._band(query, key, value, table, mask, 0)
        rows = max(1, BAND_BYTES // max(1, batch * heads * width * key.shape[2] * query.itemsize))
        if rows >= height:
            return self._band(query, key, value, table, mask, 0)
        bands = []
        for first in range(0, height, rows):
            arguments = (query[:, first : first + rows], key, value, table, mask, first)
            if torch.is_grad_enabled():
                bands.append(checkpoint(self._band, *arguments, use_reentrant=False))
            else:
                bands.append(self._band(*arguments))
        return torch.cat(bands, dim=1)

    @torch.no_grad()
    def resize(self, grid: tuple[int, int]) -> None:
        """Resize the bias table itself to a grid of (height, width) tokens."""
        if self.position is not None:
            self.position.table = nn.Parameter(resize_step_table(self.position.table, self.grid, grid))
        self.grid = grid

    def _band(
        self, query: Tensor, key: Tensor, value: Tensor, table: Tensor | None, mask: Tensor | None, first: int
    ) -> Tensor:
        """Attend from (B, rows, W, h, d) queries, whose first row is `first`; return (B, rows, W, C)."""
        if table is not None:
            bias = self._bias(table, first, query.shape[1]).to(query.dtype)
            mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
        out = F.scaled_dot_product_attention(query.flatten(1, 2).transpose(1, 2), key, value, attn_mask=mask)
        tokens: Tensor = out.transpose(1, 2).flatten(2)
        return tokens.view(*query.shape[:3], tokens.shape[2])

    def _bias(self, table: Tensor, first: int, rows: int) -> Tensor:
        """Return (B or 1, h, rows·W, G + N) biases of some rows of queries."""
        height, width = (table.shape[1] + 1) // 2, (table.shape[2] + 1) // 2
        row_queries = torch.arange(first, first + rows, device=table.device)
        keys_r, keys_c = (torch.arange(n, device=table.device) for n in (height, width))
        row_steps = row_queries[:, None] - keys_r + height - 1  # (rows, H)
        column_steps = keys_c[:, None] - keys_c + width - 1  # (W, W)
        index = row_steps[:, None, :, None] * (2 * width - 1) + column_steps[None, :, None, :]  # (rows, W, H, W)
        entries = table.flatten(1, 2).index_select(1, index.flatten())
        bias: Tensor = entries.unflatten(1, (rows * width, height * width)).permute(0, 3, 1, 2)
        if self.position is None or self.position.to_global is None:
            return bias
        to_global = self.position.to_global[None, :, None].expand(table.shape[0], -1, rows * width, -1)
        return torch.cat([to_global, bias], dim=-1)

    def _resized_table(self, height: int, width: int, padding: Padding) -> Tensor | None:
        if self.position is None:
            return None
        table = self.position.table
        sizes = padding.sizes_within((height, width), device=table.device)
        return _tables_for(table, self.grid, sizes, height, width)


def resize_step_table(table: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Resize a bias table for maps of `grid` tokens to `new_grid`: ((2H − 1)(2W − 1), h) of the new H and W."""
    sizes = torch.tensor([new_grid], device=table.device)
    return _tables_for(table, grid, sizes, *new_grid)[0].flatten(0, 1)


def _tables_for(table: Tensor, grid: tuple[int, int], sizes: Tensor, height: int, width: int) -> Tensor:
    """Resize a table for `grid` bilinearly to each of (B, 2) `sizes`, laid out for maps of H×W.

    Returns:
        (B, 2H − 1, 2W − 1, h), with Δ = 0 in the middle.
    """
    rows, columns = 2 * grid[0] - 1, 2 * grid[1] - 1
    table = table.unflatten(0, (rows, columns))
    row_places = _step_positions(sizes[:, 0], height, table_length=rows)
    column_places = _step_positions(sizes[:, 1], width, table_length=columns)
    resized = [
        interpolate(interpolate(table, r[None])[0].transpose(0, 1), c[None])[0].transpose(0, 1)
        for r, c in zip(row_places, column_places, strict=True)
    ]
    return torch.stack(resized)


def _step_positions(sizes: Tensor, length: int, *, table_length: int) -> Tensor:
    """Return (B, 2·length − 1) places of the steps −(length − 1) to length − 1 in a table over steps."""
    steps = torch.arange(1 - length, length, device=sizes.device, dtype=torch.float64)
    entries = 2 * sizes[:, None] - 1
    return (steps + sizes[:, None] - 0.5) * table_length / entries - 0.5
