"""Bias and GELU in one pass, against PyTorch's in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vision_longformer import create_model, set_attention_backend
from vision_longformer.attention.feed_forward import FeedForward
from vision_longformer.attention.fused import add_bias_gelu_, build, is_gelu_supported


@pytest.fixture(autouse=True)
def _kernel() -> None:
    if build.kernel() is None:
        pytest.skip("no compiler")


def assert_close(actual: torch.Tensor, expected: torch.Tensor, x: torch.Tensor) -> None:
    """Compare x Φ(x): Φ is between 0 and 1, and made in some steps of which each is rounded by up to 2^-24 of that."""
    assert ((actual - expected).abs() <= 8 * 2**-24 * x.abs().clamp(min=1)).all()


@pytest.mark.parametrize("width", [1, 7, 8, 16, 37, 192])
@pytest.mark.parametrize("tokens", [0, 1, 5, 3001])
def test_equals_double_precision(width: int, tokens: int) -> None:
    x, bias = 3 * torch.randn(tokens, width), torch.randn(width)
    before = x.double() + bias.double()
    expected = F.gelu(before)
    add_bias_gelu_(x, bias)
    assert_close(x, expected, before)


def test_everywhere() -> None:
    x = torch.linspace(-12, 12, 100_001)
    out = x[:, None].clone()
    add_bias_gelu_(out, torch.zeros(1))
    expected = F.gelu(x.double())
    assert_close(out[:, 0], expected, x)


def test_far_out() -> None:
    x = torch.tensor([[-torch.inf, -3e38, -1e4, 1e4, 3e38, torch.inf, torch.nan]])
    add_bias_gelu_(x, torch.zeros(7))
    assert (x[0, :3].abs() < 1e-6).all()
    assert torch.equal(x[0, 3:6], torch.tensor([1e4, 3e38, torch.inf]))
    assert x[0, 6].isnan()


def mlp_and_input() -> tuple[FeedForward, torch.Tensor]:
    torch.manual_seed(0)
    return FeedForward(5, hidden_features=20), torch.randn(2, 3, 5)


def test_an_mlp_uses_it_in_inference_only() -> None:
    mlp, x = mlp_and_input()
    with torch.no_grad():
        assert is_gelu_supported(x, mlp.fc1, mlp.act)
        fused = mlp(x)
    assert not is_gelu_supported(x, mlp.fc1, mlp.act)
    torch.testing.assert_close(fused, mlp(x), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_whoever_looks_or_replaces_gets_the_plain_mlp() -> None:
    mlp, x = mlp_and_input()
    assert not is_gelu_supported(x.double(), mlp.fc1, mlp.act)
    assert not is_gelu_supported(x, mlp.fc1, nn.GELU(approximate="tanh"))
    assert not is_gelu_supported(x, nn.Linear(5, 20, bias=False), mlp.act)
    assert not is_gelu_supported(x, nn.utils.parametrizations.weight_norm(nn.Linear(5, 20)), mlp.act)
    seen = []
    mlp.act.register_forward_hook(lambda *arguments: seen.append(arguments))
    mlp(x)
    assert len(seen) == 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mlp(x).dtype == torch.bfloat16


@torch.no_grad()
def test_backends_agree() -> None:
    model = create_model("vision_longformer_nano", num_classes=3).eval()
    images = torch.randn(1, 3, 70, 45)
    try:
        set_attention_backend("sdpa")
        expected = model(images)
        set_attention_backend("fused")
        torch.testing.assert_close(model(images), expected, rtol=2e-6, atol=2e-6 * float(expected.abs().max()))
    finally:
        set_attention_backend("auto")
