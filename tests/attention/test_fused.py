"""The fused kernel against the dense oracle, called as models call it: through the operator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attention.cases import EXAMPLE, Case, cases, relative_error
from vision_longformer import set_attention_backend
from vision_longformer.attention import gathered
from vision_longformer.attention.dense import dense_windowed_attention
from vision_longformer.attention.fused import (
    build,
    fused_windowed_attention,
    fused_windowed_attention_backward,
    is_supported,
)
from vision_longformer.attention.geometry import ALL, NEIGHBOURS, OWN
from vision_longformer.attention.windows import Windows

FLOAT32_TOLERANCE = 2e-6
GRADIENT_TOLERANCE = 1e-5  # as gradients are sums over many queries, each a difference of sums over many keys
BFLOAT16_TOLERANCE = 2**-8  # half a unit in the last place of the result, and a little for ties

# Widths below, at and above what a register holds, in whole and in broken numbers of them.
HEAD_WIDTHS = (1, 5, 8, 17, 24, 32, 48)


@pytest.fixture(autouse=True)
def _kernel() -> Iterator[None]:
    if build.kernel() is None:
        pytest.skip("no compiler")
    yield
    set_attention_backend("auto")


def attend(case: Case, tensors: dict[str, Tensor], **changes: Any) -> Tensor:
    """Return what the operator computes, and make sure that the kernel did."""
    arguments: dict[str, Any] = {"table": None, "global_bias": None, **tensors, **case.settings(), **changes}
    spy = mock.patch.object(gathered, "fused_windowed_attention", wraps=fused_windowed_attention)
    with spy as kernel, torch.no_grad():
        out = gathered.gathered_windowed_attention(**arguments)
    assert kernel.call_count == 1
    return out


def oracle(case: Case, tensors: dict[str, Tensor], **changes: Any) -> Tensor:
    wide = {name: x.double() for name, x in tensors.items()}
    arguments: dict[str, Any] = {"table": None, "global_bias": None, **wide, **case.settings(), **changes}
    with torch.no_grad():
        return dense_windowed_attention(**arguments)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True)
@given(case=cases(), head_width=st.sampled_from(HEAD_WIDTHS))
def test_equals_dense_oracle(case: Case, head_width: int) -> None:
    case = replace(case, head_width=head_width)
    for dtype, tolerance in ((torch.float32, FLOAT32_TOLERANCE), (torch.bfloat16, BFLOAT16_TOLERANCE)):
        tensors = case.tensors(dtype)
        out = attend(case, tensors)
        assert out.dtype == dtype
        assert out.is_contiguous()
        assert relative_error(out, oracle(case, tensors)) <= tolerance, dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", ["chunk", "exact", "cyclic"])
def test_reads_what_a_linear_layer_returns(shape: Any, dtype: torch.dtype) -> None:
    batch, height, width, heads, head_width, num_global = 2, 11, 17, 3, 7, 2
    case = Case(**{**EXAMPLE.__dict__, "batch": batch, "height": height, "width": width, "shape": shape, "sizes": None})
    qkv = torch.randn(batch, height, width, 3 * heads * head_width).to(dtype).unflatten(-1, (3, heads, -1))
    of_global = torch.randn(batch, num_global, 3 * heads * head_width).to(dtype).unflatten(-1, (3, heads, -1))
    tensors = {
        "query": qkv[:, :, :, 0],
        "key_value": qkv[:, :, :, 1:],
        "global_key_value": of_global[:, :, 1:],
        "table": torch.randn(11**2, heads),
        "global_bias": torch.randn(heads, num_global),
    }
    expected = oracle(case, tensors)
    tolerance = FLOAT32_TOLERANCE if dtype == torch.float32 else BFLOAT16_TOLERANCE
    assert relative_error(attend(case, tensors), expected) <= tolerance

    # Every axis, the channels included, may lie anywhere in memory.
    for name, x in tensors.items():
        axes = list(range(x.ndim))[::-1]
        tensors[name] = x.permute(axes).contiguous().permute(axes)
    assert relative_error(attend(case, tensors), expected) <= tolerance


@pytest.mark.parametrize("shape", ["chunk", "exact", "cyclic"])
def test_threads_share_a_single_row_of_chunks(shape: Any) -> None:
    changes: dict[str, Any] = {"batch": 1, "heads": 1, "height": 3, "width": 3 * 50 + 1, "window": 3, "sizes": None}
    case = Case(**{**EXAMPLE.__dict__, **changes, "shape": shape})
    tensors, before = case.tensors(torch.float32), torch.get_num_threads()
    expected = oracle(case, tensors)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert relative_error(attend(case, tensors), expected) <= FLOAT32_TOLERANCE
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("biased", ["neither", "table", "global_bias"])
def test_biases_are_optional(biased: str) -> None:
    tensors = EXAMPLE.tensors(torch.float32)
    for name in ("table", "global_bias"):
        if name != biased:
            del tensors[name]
    assert relative_error(attend(EXAMPLE, tensors), oracle(EXAMPLE, tensors)) <= FLOAT32_TOLERANCE


@pytest.mark.parametrize("shape", ["chunk", "exact", "cyclic"])
@pytest.mark.parametrize("canary", [1e30, float("nan")])
@pytest.mark.parametrize("num_global", [0, 2])
def test_padding_is_never_seen(shape: Any, canary: float, num_global: int) -> None:
    case = Case(**{**EXAMPLE.__dict__, "shape": shape, "num_global": num_global})
    valid = case.valid()
    assert valid is not None
    tensors = case.tensors(torch.float32)
    expected = attend(case, tensors)
    for name in ("query", "key_value"):
        padding = ~valid.view(*valid.shape, *[1] * (tensors[name].ndim - 3))
        tensors[name] = tensors[name].detach().masked_fill(padding, canary)
    assert torch.equal(attend(case, tensors), expected)
    assert not expected[~valid].any()


def test_kernel_itself_ignores_what_is_not_valid() -> None:
    tensors: dict[str, Any] = {name: x.detach() for name, x in EXAMPLE.tensors(torch.float32).items()}
    valid = EXAMPLE.valid()
    assert valid is not None
    settings: dict[str, Any] = {
        "valid": valid,
        "offsets": torch.tensor(ALL),
        "window": 3,
        "top": 0,
        "left": 0,
        "exact": False,
    }
    expected = fused_windowed_attention(Windows(**tensors, **settings))
    tensors["key_value"] = tensors["key_value"].masked_fill(~valid[..., None, None, None], float("nan"))
    out = fused_windowed_attention(Windows(**tensors, **settings))
    assert torch.equal(out, expected)


def test_every_missing_pixel_may_differ() -> None:
    case = replace(EXAMPLE, sizes=None)
    valid = torch.rand(2, 11, 7) < 0.6
    tensors = case.tensors(torch.float32)
    assert relative_error(attend(case, tensors, valid=valid), oracle(case, tensors, valid=valid)) <= FLOAT32_TOLERANCE


def test_queries_without_any_key_give_zeros() -> None:
    tensors: dict[str, Any] = {
        name: x.detach() for name, x in replace(EXAMPLE, num_global=0).tensors(torch.float32).items()
    }
    valid = torch.zeros(2, 11, 7, dtype=torch.bool)
    settings: dict[str, Any] = {
        "valid": valid,
        "offsets": torch.tensor(ALL),
        "window": 3,
        "top": 0,
        "left": 0,
        "exact": False,
    }
    out = fused_windowed_attention(Windows(**tensors, **settings))
    assert not out.any()


def test_nan_reaches_who_sees_it_and_nobody_else() -> None:
    case = replace(EXAMPLE, sizes=None)
    for name, place in (("query", (0, 5, 3)), ("key_value", (0, 5, 3, 0)), ("key_value", (0, 5, 3, 1))):
        poisoned, by_key = ({k: x.detach() for k, x in case.tensors(torch.float32).items()} for _ in range(2))
        poisoned[name][place] = float("nan")
        # The oracle multiplies unseen values by zero, which does not stop NaN. Keys are masked, and as widely seen.
        by_key[name][(*place[:3], 0) if name == "key_value" else place] = float("nan")
        assert torch.equal(attend(case, poisoned).isnan(), oracle(case, by_key).isnan()), (name, place)


def test_nan_in_the_only_key_is_no_missing_key() -> None:
    settings: dict[str, Any] = {"offsets": torch.tensor([OWN]), "window": 3, "top": 0, "left": 0, "exact": False}
    query, key_value = torch.zeros(1, 3, 6, 1, 8), torch.zeros(1, 3, 6, 2, 1, 8)
    valid = torch.zeros(1, 3, 6, dtype=torch.bool)
    valid[0, 1, 1] = True
    key_value[0, 1, 1] = float("nan")
    no_global = torch.zeros(1, 0, 2, 1, 8)
    out = fused_windowed_attention(Windows(query, key_value, no_global, None, None, valid, **settings))
    assert out[:, :, :3].isnan().all()
    assert not out[:, :, 3:].any()  # the other chunk has no key at all


@pytest.mark.parametrize("name", ["key_value", "global_key_value", "table", "global_bias", "valid"])
@pytest.mark.parametrize("flaw", ["short", "type", "device"])
def test_tensors_that_do_not_fit_are_refused(name: str, flaw: str) -> None:
    call: dict[str, Any] = {k: x.detach() for k, x in EXAMPLE.tensors(torch.float32).items()}
    call |= {"valid": torch.ones(2, 11, 7, dtype=torch.bool), "offsets": torch.tensor(ALL), "window": 3}
    call |= {"top": 0, "left": 0, "exact": False}
    assert fused_windowed_attention(Windows(**call)).isfinite().all()
    match flaw:
        case "short":
            call[name] = call[name][:, :-1] if name != "global_key_value" else call[name][..., :-1]
        case "type":
            call[name] = call[name].to(torch.bfloat16)
        case "device":
            call[name] = call[name].to("meta")
    if flaw == "type" and name in ("table", "global_bias"):  # which may have any
        assert fused_windowed_attention(Windows(**call)).isfinite().all()
        return
    with pytest.raises(ValueError, match=rf"^windowed attention: {name} "):
        fused_windowed_attention(Windows(**call))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_global", [0, 2])
def test_large_logits_stay_finite(dtype: torch.dtype, num_global: int) -> None:
    case = replace(EXAMPLE, num_global=num_global)
    tensors = {name: 10 * x.detach() for name, x in case.tensors(dtype).items()}  # logits a hundred times larger
    assert attend(case, tensors).isfinite().all()


@pytest.mark.parametrize("offsets", [(OWN,), *[(OWN, offset) for offset in NEIGHBOURS], ALL[:3], NEIGHBOURS[:3]])
def test_some_neighbours(offsets: Any) -> None:
    case = replace(EXAMPLE, offsets=offsets)
    tensors = case.tensors(torch.float32)
    assert relative_error(attend(case, tensors), oracle(case, tensors)) <= FLOAT32_TOLERANCE


@pytest.mark.parametrize("window", [7, 12])
def test_published_window_on_a_map_of_many_chunks(window: int) -> None:
    case = replace(EXAMPLE, window=window, height=4 * window, width=5 * window - 2, sizes=None, batch=1, head_width=32)
    tensors = case.tensors(torch.float32)
    assert relative_error(attend(case, tensors), oracle(case, tensors)) <= FLOAT32_TOLERANCE


def test_threads_change_nothing() -> None:
    case = replace(EXAMPLE, height=40, width=33)
    case = replace(case, sizes=((40, 33), (22, 31)))
    tensors = case.tensors(torch.float32)
    expected = attend(case, tensors)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(attend(case, tensors), expected)
    finally:
        torch.set_num_threads(before)


def gradients(case: Case, dtype: torch.dtype, **changes: Any) -> dict[str, Tensor]:
    """Return the kernel's gradients, made sure of, or the oracle's in double precision."""
    tensors: dict[str, Any] = case.tensors(dtype)
    generator = torch.Generator().manual_seed(case.seed + 1)
    cotangent = torch.randn(tensors["query"].shape, generator=generator).to(dtype)
    arguments: dict[str, Any] = {"table": None, "global_bias": None, **tensors, **case.settings(), **changes}
    if dtype == torch.float64:
        return differentiate(dense_windowed_attention(**arguments), tensors, cotangent)
    name = "fused_windowed_attention_backward"
    with mock.patch.object(gathered, name, wraps=fused_windowed_attention_backward) as kernel:
        result = differentiate(gathered.gathered_windowed_attention(**arguments), tensors, cotangent)
    assert kernel.call_count == 1
    return result


def differentiate(out: Tensor, tensors: dict[str, Tensor], cotangent: Tensor) -> dict[str, Tensor]:
    leaves = torch.autograd.grad(out, list(tensors.values()), cotangent)
    return dict(zip(tensors, leaves, strict=True))


def assert_gradients_equal(case: Case, dtype: torch.dtype, tolerance: float, **changes: Any) -> None:
    expected = gradients(case, torch.float64, **changes)
    for name, actual in gradients(case, dtype, **changes).items():
        assert actual.dtype == dtype
        if actual.numel():
            assert relative_error(actual, expected[name]) <= tolerance, name


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True)
@given(case=cases(), head_width=st.sampled_from(HEAD_WIDTHS))
def test_gradients_equal_those_of_the_oracle(case: Case, head_width: int) -> None:
    assert_gradients_equal(replace(case, head_width=head_width), torch.float32, GRADIENT_TOLERANCE)


@pytest.mark.parametrize("shape", ["chunk", "exact", "cyclic"])
def test_gradients_in_half_precision(shape: Any) -> None:
    case = replace(EXAMPLE, shape=shape, head_width=8)
    # The oracle has the inputs as they were before they were rounded to 8 bits.
    assert_gradients_equal(case, torch.bfloat16, 16 * BFLOAT16_TOLERANCE)


@pytest.mark.parametrize("offsets", [(OWN,), *[(OWN, offset) for offset in NEIGHBOURS], ALL[:3]])
@pytest.mark.parametrize("shape", ["chunk", "cyclic"])
def test_gradients_of_some_neighbours(offsets: Any, shape: Any) -> None:
    case = replace(EXAMPLE, offsets=offsets, shape=shape, height=17, width=13, sizes=((17, 13), (9, 12)))
    assert_gradients_equal(case, torch.float32, GRADIENT_TOLERANCE)


@pytest.mark.parametrize("window", [7, 12])
def test_gradients_on_a_map_of_many_chunks(window: int) -> None:
    case = replace(EXAMPLE, window=window, height=4 * window, width=5 * window - 2, sizes=None, batch=1, head_width=32)
    assert_gradients_equal(case, torch.float32, GRADIENT_TOLERANCE)


def test_gradients_do_not_depend_on_threads() -> None:
    case = replace(EXAMPLE, height=40, width=33, sizes=((40, 33), (22, 31)))
    expected = gradients(case, torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for _ in range(3):
            for name, actual in gradients(case, torch.float32).items():
                assert torch.equal(actual, expected[name]), name
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("heads", [1, 2])
def test_gradients_lie_in_memory_as_their_parameters_do(heads: int) -> None:
    case = replace(EXAMPLE, heads=heads)
    found, tensors = gradients(case, torch.float32), case.tensors(torch.float32)
    for name in ("table", "global_bias"):
        assert found[name].stride() == tensors[name].stride(), name


def test_gradients_read_any_layout() -> None:
    """Autograd may hand over a gradient that is expanded, or whose channels do not lie side by side."""
    case = replace(EXAMPLE, sizes=None)
    tensors: dict[str, Any] = case.tensors(torch.float32)
    for layout in (torch.ones(()).expand, lambda *shape: torch.randn(shape[::-1]).permute(4, 3, 2, 1, 0)):
        cotangent: Tensor = layout(*tensors["query"].shape)
        strided, plain = (
            differentiate(gathered.gathered_windowed_attention(**tensors, **case.settings()), tensors, x)
            for x in (cotangent, cotangent.contiguous())
        )
        assert all(torch.equal(strided[name], plain[name]) for name in tensors)


def test_what_it_cannot_compute_takes_the_other_path() -> None:
    query = EXAMPLE.tensors(torch.float32)["query"]

    def supported(query: Tensor, offsets: Any = ALL) -> bool:
        return is_supported(Windows(query, query, query, None, None, None, torch.tensor(offsets), 3, 0, 0, False))

    assert supported(query)
    assert not supported(query.double())
    assert not supported(query.half())
    assert not supported(query.to("meta"))
    assert not supported(query[:0])
    assert not supported(query, ((-1, 0), (1, 0)))  # a gap between rows
    for dtype in (torch.float64, torch.float32):
        case = replace(EXAMPLE, offsets=((-1, 0), (1, 0)), num_global=1)
        tensors: dict[str, Any] = case.tensors(dtype)
        out = gathered.gathered_windowed_attention(**tensors, **case.settings())
        assert relative_error(out, oracle(case, tensors)) <= 1e-6
