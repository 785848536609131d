"""Linformer's attention: keys and values projected along the token axis (Wang et al., arXiv 2006.04768).

B batch, H×W map, N = H·W tokens, C channels, h heads, d head width, G global tokens, k projected rows

K' = Pᵀ K and V' = Pᵀ V, with a learned P (G + N, k) for the map it was trained at. Another map needs the map rows of P
stretched bilinearly to its size, P' = R P with R (N', N) the product of a matrix along each axis. As P'ᵀ K = Pᵀ (Rᵀ K),
it is keys and values that are reduced to the trained map here, and P' never exists.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.attention.position import axis_positions, hat_weights, interpolate
from vision_longformer.attention.projections import Projections
from vision_longformer.config import Linformer
from vision_longformer.padding import UNPADDED, Padding


class LinformerAttention(nn.Module):
    """Every token attends to k mixtures of all tokens.

    Attributes:
        grid: (height, width) in tokens that the projections are sized for.
        key_features: (G + N, k), global tokens first.
        value_features: The same for values; None if keys and values share one.
    """

    def __init__(
        self, config: Linformer, *, width: int, num_heads: int, num_global_tokens: int, grid: tuple[int, int]
    ) -> None:
        super().__init__()
        self.grid = grid
        self.num_global_tokens = num_global_tokens
        self.projections = Projections(width, num_heads)
        shape = (num_global_tokens + grid[0] * grid[1], config.num_features)
        self.key_features = _features(*shape)
        self.value_features = None if config.shared_projection else _features(*shape)

    def forward(self, x: Tensor, global_tokens: Tensor, padding: Padding = UNPADDED) -> tuple[Tensor, Tensor]:
        """Attend from a (B, H, W, C) map and (B, G, C) global tokens; return both. Padding is no key."""
        x = padding.clean(x)
        local, of_global = self.projections.split(x), self.projections.split(global_tokens)
        on_map = self._on_trained_grid(local.key_value, padding).flatten(1, 2)  # (B, H₀·W₀, 2, h, d)
        key, value = torch.cat([of_global.key_value, on_map], dim=1).unbind(2)  # (B, G + H₀·W₀, h, d)
        value_features = self.key_features if self.value_features is None else self.value_features
        key = torch.einsum("nk,bnhd->bhkd", self.key_features, key)
        value = torch.einsum("nk,bnhd->bhkd", value_features, value)
        return self._attend(local.query.flatten(1, 2), key, value).view(x.shape), self._attend(
            of_global.query, key, value
        )

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend from (B, n, h, d) queries to (B, h, k, d) keys and values; return (B, n, C), projected."""
        out = F.scaled_dot_product_attention(query.transpose(1, 2), key, value)  # (B, h, n, d)
        projected: Tensor = self.projections.proj(out.transpose(1, 2).flatten(2))
        return projected

    def _on_trained_grid(self, key_value: Tensor, padding: Padding) -> Tensor:
        """Reduce (B, H, W, 2, h, d) keys and values to the trained map: (B, H₀, W₀, 2, h, d)."""
        height, width = key_value.shape[1:3]
        if padding.valid is not None:
            key_value = torch.where(padding.valid[..., None, None, None], key_value, 0)
        elif (height, width) == self.grid:
            return key_value
        sizes = padding.sizes_within((height, width), device=key_value.device).expand(key_value.shape[0], -1)
        rows, columns = (
            hat_weights(axis_positions(sizes[:, axis], length, table_length=trained), trained).to(key_value.dtype)
            for axis, (length, trained) in enumerate(zip((height, width), self.grid, strict=True))
        )  # (B, H, H₀), (B, W, W₀)
        reduced = torch.einsum("brp,brcthd->bpcthd", rows, key_value)
        return torch.einsum("bcq,bpcthd->bpqthd", columns, reduced)

    @torch.no_grad()
    def resize(self, grid: tuple[int, int]) -> None:
        """Resize the projections themselves to a grid of (height, width) tokens."""
        self.key_features = self._resized(self.key_features, grid)
        if self.value_features is not None:
            self.value_features = self._resized(self.value_features, grid)
        self.grid = grid

    def _resized(self, features: Tensor, grid: tuple[int, int]) -> nn.Parameter:
        return nn.Parameter(resize_features(features, self.grid, grid, num_global_tokens=self.num_global_tokens))


def resize_features(
    features: Tensor, grid: tuple[int, int], new_grid: tuple[int, int], *, num_global_tokens: int
) -> Tensor:
    """Resize (G + H·W, k) projections for a `grid` of H×W tokens bilinearly to `new_grid`; global rows are kept."""
    of_global, of_map = features.split([num_global_tokens, grid[0] * grid[1]])
    of_map = of_map.unflatten(0, grid)  # (H, W, k)
    for old, new in zip(grid, new_grid, strict=True):
        positions = axis_positions(torch.tensor([new], device=features.device), new, table_length=old)
        of_map = interpolate(of_map, positions)[0].transpose(0, 1)  # the other axis comes first
    return torch.cat([of_global, of_map.flatten(0, 1)])


def _features(rows: int, num_features: int) -> nn.Parameter:
    bound = num_features**-0.5
    return nn.Parameter(torch.empty(rows, num_features).uniform_(-bound, bound))
