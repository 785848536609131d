"""Normalisation of maps that are partly padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vision_longformer.padding import Padding


class RealGroupNorm(nn.GroupNorm):
    """Group normalisation whose mean and variance are over an image's own positions.

    It keeps the published head's norm, and its weights, for batches of any sizes: ordinary statistics would count
    padding, and a norm over channels alone would make another model.
    """

    def forward(self, x: Tensor, padding: Padding) -> Tensor:  # type: ignore[override]
        """Normalise a (B, C, H, W) map; at padding, the result has no meaning."""
        if padding.valid is None:
            return super().forward(x)
        values: Tensor = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        values = padding.clean_planes(values).unflatten(1, (self.num_groups, -1))  # (B, groups, C/groups, H, W)
        real = padding.valid[:, None, None]  # (B, 1, 1, H, W)
        count = real.sum(dim=(3, 4), keepdim=True) * values.shape[2]  # (B, 1, 1, 1, 1)
        mean = values.sum(dim=(2, 3, 4), keepdim=True) / count
        values = torch.where(real, values - mean, 0)
        variance = values.square().sum(dim=(2, 3, 4), keepdim=True) / count
        normalised: Tensor = (values * (variance + self.eps).rsqrt()).flatten(1, 2)  # (B, C, H, W)
        return normalised * self.weight[:, None, None] + self.bias[:, None, None]
