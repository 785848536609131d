"""The MLP of a block."""

from __future__ import annotations

from typing import cast

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from vision_longformer.attention.tracing import is_hooked, is_traced


class FeedForward(Mlp):  # type: ignore[misc]  # timm has no types
    """timm's MLP, which in inference applies GELU in place: new memory for the hidden channels would take its time."""

    def forward(self, x: Tensor) -> Tensor:
        """Transform (..., C) tokens."""
        if torch.is_grad_enabled() or is_traced() or is_hooked(self) or not self._is_plain():
            return cast(Tensor, super().forward(x))
        return cast(Tensor, self.fc2(torch.ops.aten.gelu_(self.fc1(x))))

    def _is_plain(self) -> bool:
        """Tell whether nobody has replaced what is written in place, or what writes there."""
        return type(self.fc1) is nn.Linear and type(self.act) is nn.GELU and self.act.approximate == "none"
