"""The gathering path of windowed attention against the dense oracle. test_fused.py has the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from attention.cases import EXAMPLE, Case, cases, relative_error
from vision_longformer import set_attention_backend
from vision_longformer.attention import gathered
from vision_longformer.attention.dense import dense_windowed_attention
from vision_longformer.attention.gathered import gathered_windowed_attention
from vision_longformer.attention.geometry import ALL, NEIGHBOURS, OWN


@pytest.fixture(autouse=True)
def _gathering() -> Iterator[None]:
    set_attention_backend("sdpa")
    yield
    set_attention_backend("auto")


def run(function: Any, case: Case, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the result and the gradients of all inputs for one cotangent."""
    arguments = {"table": None, "global_bias": None, **tensors}
    with mock.patch.object(gathered, "BAND_BYTES", case.band_bytes):
        out = function(**arguments, **case.settings())
        cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
        leaves = {name: tensor for name, tensor in tensors.items() if tensor.numel()}
        gradients = torch.autograd.grad(out, list(leaves.values()), cotangent)
    results = {"out": out, **dict(zip(leaves, gradients, strict=True))}
    # All biases add to logits: one tensor to compare. A lone global bias can be what is left of terms that cancel.
    biases = [results.pop(name).flatten() for name in ("table", "global_bias") if name in results]
    return {**results, "biases": torch.cat(biases)} if biases else results


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True)
@given(case=cases())
def test_equals_dense_oracle(case: Case) -> None:
    expected = run(dense_windowed_attention, case, case.tensors())
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        actual = run(gathered_windowed_attention, case, case.tensors(dtype))
        for name in expected:
            assert relative_error(actual[name], expected[name]) <= tolerance, (name, dtype)


@pytest.mark.parametrize("shape", ["chunk", "exact", "cyclic"])
@pytest.mark.parametrize("offsets", [ALL, (OWN,), (OWN, NEIGHBOURS[2])])
def test_gradients_are_derivatives(shape: Any, offsets: Any) -> None:
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)

    inputs = [normal(1, 5, 4, 1, 2), normal(1, 5, 4, 2, 1, 2), normal(1, 1, 2, 1, 2)]
    inputs += [normal(7**2, 1), normal(1, 1)]
    valid = torch.ones(1, 5, 4, dtype=torch.bool)
    valid[:, 4:, 3:] = False

    def attend(*tensors: Tensor) -> Tensor:
        *tokens, table, global_bias = tensors
        return gathered_windowed_attention(
            *tokens, table=table, global_bias=global_bias, valid=valid, window=2, shape=shape, offsets=offsets
        )

    assert torch.autograd.gradcheck(attend, inputs)


@pytest.mark.parametrize("function", [gathered_windowed_attention, dense_windowed_attention])
@pytest.mark.parametrize("shape", ["chunk", "exact", "cyclic"])
@pytest.mark.parametrize("canary", [1e30, float("nan")])
@pytest.mark.parametrize("num_global", [0, 2])
def test_padding_is_never_seen(function: Any, shape: Any, canary: float, num_global: int) -> None:
    case = replace(EXAMPLE, shape=shape, num_global=num_global)
    valid = case.valid()
    assert valid is not None
    results = []
    for filler in (0.0, canary):
        tensors = case.tensors(torch.float32)
        for name in ("query", "key_value"):
            padding = ~valid.view(*valid.shape, *[1] * (tensors[name].ndim - 3))
            tensors[name] = tensors[name].detach().masked_fill(padding, filler).requires_grad_()
        results.append(run(function, case, tensors))
    for name, expected in results[0].items():
        assert torch.equal(results[1][name], expected), name
    assert not results[0]["out"][~valid].any()


@pytest.mark.parametrize("shape", ["chunk", "exact", "cyclic"])
def test_image_alone_equals_image_in_padded_batch(shape: Any) -> None:
    case = replace(EXAMPLE, shape=shape)
    tensors, alone = case.tensors(), case.without_padding(1)
    height, width = alone.height, alone.width
    together = run(gathered_windowed_attention, case, tensors)["out"]
    cut = {name: x[1:, :height, :width] for name, x in tensors.items() if name in ("query", "key_value")}
    cut["global_key_value"] = tensors["global_key_value"][1:]
    result = run(gathered_windowed_attention, alone, {**tensors, **cut})["out"]
    assert relative_error(together[1:, :height, :width], result) <= 1e-15


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_global", [0, 2])
def test_large_logits_stay_finite(dtype: torch.dtype, num_global: int) -> None:
    case = replace(EXAMPLE, num_global=num_global)
    tensors = case.tensors(dtype)
    for name in ("query", "key_value", "global_key_value"):
        tensors[name] = (10 * tensors[name]).detach().requires_grad_()  # logits a hundred times larger
    for name, result in run(gathered_windowed_attention, case, tensors).items():
        assert result.isfinite().all(), name


def test_queries_without_any_key_give_zeros() -> None:
    case = replace(EXAMPLE, num_global=0, batch=1, sizes=((1, 1),), shape="exact")
    for name, result in run(gathered_windowed_attention, case, case.tensors()).items():
        assert result.isfinite().all(), name


def test_every_missing_pixel_may_differ() -> None:
    case = replace(EXAMPLE, shape="cyclic", sizes=None)
    valid = torch.rand(2, 11, 7) < 0.6
    with mock.patch.object(Case, "valid", return_value=valid):
        expected = run(dense_windowed_attention, case, case.tensors())
        actual = run(gathered_windowed_attention, case, case.tensors())
    for name in expected:
        assert relative_error(actual[name], expected[name]) <= 1e-12, name


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of opcheck's own
@pytest.mark.parametrize(("wrapped", "exact"), [(0, False), (0, True), (3, False)])
def test_operator_is_registered_completely(wrapped: int, exact: bool) -> None:
    tensors = list(EXAMPLE.tensors().values())[:3]
    tensors[1] = torch.randn(2, 11 + 2 * wrapped, 7, 2, 2, 5, dtype=torch.float64, requires_grad=True)
    biases = [torch.randn(11**2, 2).double().requires_grad_(), torch.randn(2, 2).double().requires_grad_()]
    arguments = (*tensors, *biases, None, torch.tensor(ALL), 3, wrapped, 0, exact)
    results = torch.library.opcheck(gathered.windowed_attention, arguments)
    assert set(results.values()) == {"SUCCESS"}
