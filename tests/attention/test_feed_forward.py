"""The MLP of a block, which applies GELU in place in inference, against timm's."""

from __future__ import annotations

import pytest
import torch
from timm.layers import Mlp
from torch import nn

from vision_longformer.attention.feed_forward import FeedForward


def mlp_and_input() -> tuple[FeedForward, torch.Tensor]:
    torch.manual_seed(0)
    return FeedForward(5, hidden_features=20), torch.randn(2, 3, 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equals_the_mlp_it_is(dtype: torch.dtype) -> None:
    mlp, x = mlp_and_input()
    mlp, x = mlp.to(dtype), x.to(dtype)
    before = x.clone()
    with torch.no_grad():
        assert torch.equal(mlp(x), Mlp.forward(mlp, x))
    assert torch.equal(x, before)


def test_gradients_come_back() -> None:
    mlp, x = mlp_and_input()
    mlp(x.requires_grad_()).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


class Shared(nn.Linear):
    """Gives the same tensor each time, which must not be written to."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "given"):
            self.given = super().forward(x)
        return self.given


@torch.no_grad()
def test_whoever_looks_or_replaces_gets_the_plain_mlp() -> None:
    mlp, x = mlp_and_input()
    seen = []
    handle = mlp.act.register_forward_hook(lambda module, given, result: seen.append((given[0].clone(), result)))
    mlp(x)
    handle.remove()
    assert len(seen) == 1
    assert torch.equal(nn.functional.gelu(seen[0][0]), seen[0][1])
    mlp.fc1 = Shared(5, 20)
    assert torch.equal(mlp(x), mlp(x))
    mlp.act = nn.GELU(approximate="tanh")
    assert torch.equal(mlp(x), Mlp.forward(mlp, x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mlp(x).dtype == torch.bfloat16
