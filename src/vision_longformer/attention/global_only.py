"""Global-only attention, one of the mechanisms the paper compares with (paper, section 4.3).

B batch, H×W map, C channels, G global tokens
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.attention.geometry import Extent
from vision_longformer.attention.position import GlobalQueryBias
from vision_longformer.attention.projections import Projections
from vision_longformer.config import GlobalOnly


class GlobalOnlyAttention(nn.Module):
    """Local tokens attend to the global tokens alone, not even to themselves; global tokens attend to everything.

    With relative positions, only the global queries have biases.
    """

    def __init__(
        self, config: GlobalOnly, *, width: int, num_heads: int, num_global_tokens: int, relative_position: bool
    ) -> None:
        super().__init__()
        self.projections = Projections(width, num_heads, shared_global=config.shared_global_projections)
        self.position = GlobalQueryBias(num_heads, num_global_tokens) if relative_position else None

    def forward(self, x: Tensor, global_tokens: Tensor, extent: Extent | None = None) -> tuple[Tensor, Tensor]:
        """Attend from a (B, H, W, C) map and (B, G, C) global tokens; return both. Padding of the map is no key."""
        valid = None if extent is None else extent.valid
        local, of_global = self.projections.split(x), self.projections.split(global_tokens)
        query, key, value = (
            tokens.transpose(1, 2) for tokens in (local.query.flatten(1, 2), of_global.key, of_global.value)
        )  # (B, h, N or G, d)
        out = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)  # (B, N, h, d)
        out = self.projections.proj(out.flatten(2).view(x.shape))
        return out, self.projections.attend_from_global(
            x, global_tokens, local, of_global, bias=self.position, valid=valid
        )
