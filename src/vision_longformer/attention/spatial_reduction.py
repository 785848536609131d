"""Spatial-reduction attention of the Pyramid Vision Transformer (Wang et al., arXiv 2102.12122).

B batch, H×W map, N = H·W tokens, C channels, h heads, d head width, G global tokens, R ratio, n reduced tokens
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.attention.limits import refuse_hopeless
from vision_longformer.attention.projections import padding_mask
from vision_longformer.config import SpatialReduction
from vision_longformer.padding import UNPADDED, Padding, pad_to_multiple

NORM_EPS = 1e-5


class SpatialReductionAttention(nn.Module):
    """Every token attends to the global tokens and to a map that a convolution of kernel and stride R has reduced."""

    def __init__(self, config: SpatialReduction, *, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.ratio = config.ratio
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.reduction = nn.Conv2d(width, width, kernel_size=self.ratio, stride=self.ratio, bias=False)

    def forward(self, x: Tensor, global_tokens: Tensor, padding: Padding = UNPADDED) -> tuple[Tensor, Tensor]:
        """Attend from a (B, H, W, C) map and (B, G, C) global tokens; return both. Padding is no key.

        Raises:
            ValueError: The map is so large that one layer would take minutes.
        """
        _, height, width, channels = x.shape
        cost = 2 * channels * height * width * -(-height // self.ratio) * -(-width // self.ratio)
        refuse_hopeless(
            f"spatial reduction by {self.ratio}×{self.ratio}", height=height, width=width, multiply_adds=cost
        )
        x = padding.clean(x)
        reduced, valid = self._reduce(x, padding)
        sources = torch.cat([global_tokens, reduced.flatten(1, 2)], dim=1)  # (B, G + n, C)
        key, value = self.key_value(sources).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mask = padding_mask(valid, global_tokens.shape[1])
        out = self._attend(x.flatten(1, 2), key, value, mask).view(x.shape)
        return out, self._attend(global_tokens, key, value, mask)

    def _reduce(self, x: Tensor, padding: Padding) -> tuple[Tensor, Tensor | None]:
        """Return the reduced, normalised (B, ⌈H/R⌉, ⌈W/R⌉, C) map, zero at padding, and what of it is real."""
        padded = pad_to_multiple(x, self.ratio)
        reduced = self.reduction(padded.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        valid = padding.downsample(self.ratio).valid
        return instance_norm(reduced, valid), valid

    def _attend(self, tokens: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from (B, m, C) tokens to (B, h, G + n, d) keys and values; return (B, m, C), projected."""
        query = self.query(tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, h, m, d)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        projected: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return projected


def instance_norm(x: Tensor, valid: Tensor | None) -> Tensor:
    """Give each channel of each (H, W, C) map mean 0 and variance 1 over its real positions; others become 0.

    PyTorch's InstanceNorm knows no padding, and refuses a map of a single position, which becomes 0 here. Computed in
    at least float32, as squares leave the range of half precision.
    """
    values = x if x.dtype == torch.float64 else x.float()
    real = x.new_ones(x.shape[:3], dtype=torch.bool) if valid is None else valid
    count = real.sum(dim=(1, 2)).clamp(min=1)[:, None, None, None]
    values = torch.where(real[..., None], values, 0)
    centred = torch.where(real[..., None], values - values.sum(dim=(1, 2), keepdim=True) / count, 0)
    variance = centred.square().sum(dim=(1, 2), keepdim=True) / count
    return (centred * (variance + NORM_EPS).rsqrt()).to(x.dtype)
