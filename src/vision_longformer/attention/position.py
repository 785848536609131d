"""Where a token stands: absolute embeddings, biases by relative position, and their resizing to other maps.

B batch, H×W map, C channels, h heads, G global tokens, L length of a table
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

INIT_STD = 0.02


def axis_positions(sizes: Tensor, length: int, *, table_length: int) -> Tensor:
    """Return (B, length) places in a table of `table_length` for the positions of axes of (B,) `sizes`.

    Both axes cover the same range, from edge to edge (`align_corners=False`). Positions past an image's size lie
    past the end of the table.
    """
    centres = torch.arange(length, device=sizes.device, dtype=torch.float64) + 0.5
    return centres * table_length / sizes[:, None] - 0.5


def interpolate(table: Tensor, positions: Tensor) -> Tensor:
    """Read (L, ...) `table` at (B, n) fractional `positions` by linear interpolation, clamped to its ends.

    Returns:
        (B, n, ...). A product with a matrix of hat functions: exact at whole positions, repeatable in backward.
    """
    weights = hat_weights(positions, table.shape[0])
    out: Tensor = torch.tensordot(weights.to(table.dtype), table, dims=1)
    return out


def hat_weights(positions: Tensor, length: int) -> Tensor:
    """Return (B, n, L): how much of each entry of a table of `length` L is in what (B, n) `positions` read."""
    positions = positions.clamp(0, length - 1)
    entries = torch.arange(length, device=positions.device)
    return (1 - (positions[..., None] - entries).abs()).clamp(min=0)


def resize_axis_table(table: Tensor, length: int) -> Tensor:
    """Resize an (L, C) row or column table to (length, C)."""
    size = torch.tensor([length], device=table.device)
    return interpolate(table, axis_positions(size, length, table_length=len(table)))[0]


class AbsolutePosition(nn.Module):
    """Row and column tables, concatenated for each token; global tokens have their own (paper, section 3.1)."""

    def __init__(self, width: int, grid: tuple[int, int], *, num_global_tokens: int) -> None:
        super().__init__()
        self.rows = _table(grid[0], width // 2)
        self.columns = _table(grid[1], width // 2)
        self.global_tokens = _table(num_global_tokens, width) if num_global_tokens else None

    def forward(self, height: int, width: int, sizes: Tensor) -> Tensor:
        """Return the (B, H, W, C) embedding of maps of (B, 2) `sizes` in the top left of H×W."""
        row_places = axis_positions(sizes[:, 0], height, table_length=len(self.rows))
        column_places = axis_positions(sizes[:, 1], width, table_length=len(self.columns))
        rows = interpolate(self.rows, row_places)  # (B, H, C/2)
        columns = interpolate(self.columns, column_places)  # (B, W, C/2)
        rows = rows[:, :, None].expand(-1, -1, width, -1)
        columns = columns[:, None].expand(-1, height, -1, -1)
        return torch.cat([rows, columns], dim=-1)

    @torch.no_grad()
    def resize(self, grid: tuple[int, int]) -> None:
        """Resize the tables themselves to a grid of (height, width) tokens."""
        self.rows = nn.Parameter(resize_axis_table(self.rows, grid[0]))
        self.columns = nn.Parameter(resize_axis_table(self.columns, grid[1]))


class GlobalQueryBias(nn.Module):
    """Biases of the logits of global queries (paper, section 3.1).

    Attributes:
        to_map: (h, G), from each global query to every map key.
        to_global: (h, G, G), from each global query to each global key.
    """

    def __init__(self, num_heads: int, num_global_tokens: int) -> None:
        super().__init__()
        self.to_map = _table(num_heads, num_global_tokens)
        self.to_global = _table(num_heads, num_global_tokens, num_global_tokens)


class RelativePositionBias(nn.Module):
    """Learned biases of attention logits (paper, section 3.1).

    Attributes:
        table: (rows, h), a bias for each relative position of two map tokens. Its owner knows the order of the rows.
        to_global: (h, G), from every map query to each global key. None without global tokens.
        global_queries: The biases of the global queries. None without global tokens.
    """

    to_global: nn.Parameter | None
    global_queries: GlobalQueryBias | None

    def __init__(self, rows: int, num_heads: int, *, num_global_tokens: int) -> None:
        super().__init__()
        self.table = _table(rows, num_heads)
        self.to_global = _table(num_heads, num_global_tokens) if num_global_tokens else None
        self.global_queries = GlobalQueryBias(num_heads, num_global_tokens) if num_global_tokens else None


def _table(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=INIT_STD))
