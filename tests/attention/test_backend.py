"""Choosing what computes windowed attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch

from attention.cases import relative_error
from vision_longformer import StageConfig, attention_backend, set_attention_backend
from vision_longformer.attention import build_attention, gathered, windowed
from vision_longformer.attention.fused import build


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    set_attention_backend("auto")


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("auto", "fused_windowed_attention"),
        ("fused", "fused_windowed_attention"),
        ("sdpa", "_regions"),
        ("dense", "dense_windowed_attention"),
    ],
)
def test_each_runs_and_gives_the_same(name: Any, runs: str) -> None:
    if name in ("auto", "fused") and build.kernel() is None:
        pytest.skip("no compiler")
    layer = build_attention(StageConfig(depth=1, width=12, num_heads=3), grid=(14, 14)).eval()
    torch.nn.init.normal_(layer.position.table)  # type: ignore[union-attr, arg-type]
    x, global_tokens = torch.randn(2, 23, 17, 12), torch.randn(2, 1, 12)
    with torch.no_grad():
        set_attention_backend("dense")
        expected = layer(x, global_tokens)
        set_attention_backend(name)
        module = windowed if name == "dense" else gathered
        with mock.patch.object(module, runs, wraps=getattr(module, runs)) as spy:
            actual = layer(x, global_tokens)
    assert attention_backend() == name
    assert spy.call_count == 1
    for a, e in zip(actual, expected, strict=True):
        assert relative_error(a, e) <= 2e-6


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="attention backend 'fast': must be one of auto, fused, triton, sdpa, dense"):
        set_attention_backend("fast")  # type: ignore[arg-type]
    assert attention_backend() == "auto"
