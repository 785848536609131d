"""Global-only attention, one of the mechanisms the paper compares with (paper, section 4.3).

B batch, H×W map, C channels, G global tokens
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.attention.position import GlobalQueryBias
from vision_longformer.attention.projections import Projections, QueryKeyValue
from vision_longformer.config import GlobalOnly
from vision_longformer.padding import UNPADDED, Padding


class GlobalOnlyAttention(nn.Module):
    """Local tokens attend to the global tokens alone, not even to themselves; global tokens attend to everything.

    With relative positions, only the global queries have biases.

    Attributes:
        is_local: Whether a map can go by rows: keys of a band are near it, as there are none.
        step: Rows in a chunk row: there are no chunks.
        halo: Rows of keys that a band of the map sees above and below itself.
    """

    is_local = True
    step = 1
    halo = 0

    def __init__(
        self, config: GlobalOnly, *, width: int, num_heads: int, num_global_tokens: int, relative_position: bool
    ) -> None:
        super().__init__()
        self.projections = Projections(width, num_heads, shared_global=config.shared_global_projections)
        self.position = GlobalQueryBias(num_heads, num_global_tokens) if relative_position else None

    def forward(self, x: Tensor, global_tokens: Tensor, padding: Padding = UNPADDED) -> tuple[Tensor, Tensor]:
        """Attend from a (B, H, W, C) map and (B, G, C) global tokens; return both. Padding of the map is no key."""
        local, of_global = self.projections.split(x), self.projections.split(global_tokens)
        out = self.projections.proj(self._attend(local.query, of_global).flatten(-2))
        return out, self.projections.attend_from_global(
            x, global_tokens, local, of_global, bias=self.position, valid=padding.valid
        )

    @property
    def global_query_bias(self) -> GlobalQueryBias | None:
        """Biases of the global queries."""
        return self.position

    def attend_band(
        self, query: Tensor, key_value: Tensor, of_global: QueryKeyValue, valid: Tensor | None, *, top: int
    ) -> Tensor:
        """Attend from a band of a map, see `rowwise.RowwiseLayer`."""
        return self._attend(query, of_global)

    @staticmethod
    def _attend(query: Tensor, of_global: QueryKeyValue) -> Tensor:
        """Return (B, H, W, h, d) of (B, H, W, h, d) map queries."""
        flat = query.flatten(1, 2).transpose(1, 2)  # (B, h, N, d)
        key, value = (tokens.transpose(1, 2) for tokens in (of_global.key, of_global.value))  # (B, h, G, d)
        return F.scaled_dot_product_attention(flat, key, value).transpose(1, 2).reshape(query.shape)
