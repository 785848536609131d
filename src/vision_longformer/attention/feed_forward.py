"""The MLP of a block."""

from __future__ import annotations

from typing import cast

from timm.layers import Mlp
from torch import Tensor
from torch.nn import functional as F

from vision_longformer.attention.backend import attention_backend
from vision_longformer.attention.fused import add_bias_gelu_, is_gelu_supported


class FeedForward(Mlp):  # type: ignore[misc]  # timm has no types
    """timm's MLP, which in inference on CPUs adds the bias and applies GELU in one pass over the hidden channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Transform (..., C) tokens."""
        if attention_backend() not in ("auto", "fused") or not is_gelu_supported(x, self.fc1, self.act):
            return cast(Tensor, super().forward(x))
        hidden = F.linear(x, self.fc1.weight)
        add_bias_gelu_(hidden, self.fc1.bias)
        return cast(Tensor, self.fc2(hidden))
