"""The Triton kernels in Triton's interpreter, against the dense oracle.

Not collected by itself: test_triton.py runs it in a process with TRITON_INTERPRET=1. Memory that is not written holds
NaN there, so that nothing can be forgotten.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from triton.runtime import interpreter

from attention import triton_interpreter
from attention.cases import Case, relative_error
from vision_longformer import StageConfig, Windowed, set_attention_backend
from vision_longformer.attention import build_attention, dense, windowed
from vision_longformer.attention.geometry import ALL, NEIGHBOURS, OWN
from vision_longformer.attention.triton import launches, windowed_attention_triton
from vision_longformer.padding import Padding

DOUBLE, SINGLE, BFLOAT16, HALF = torch.float64, torch.float32, torch.bfloat16, torch.float16
# Of results, and of gradients, which are sums over many queries of differences of rounded numbers.
TOLERANCES = {DOUBLE: (1e-14, 1e-14), SINGLE: (1e-6, 3e-6), BFLOAT16: (2**-8, 2**-6), HALF: (2**-11, 2**-9)}

EXAMPLE = Case(
    batch=1,
    height=10,
    width=8,
    window=3,
    heads=2,
    head_width=16,
    num_global=1,
    shape="chunk",
    offsets=ALL,
    biased=True,
    sizes=None,
    band_bytes=0,
    seed=0,
)
MIXED: dict[str, Any] = {"batch": 2, "heads": 1, "sizes": ((10, 8), (7, 5))}
CASES: dict[str, dict[str, Any]] = {
    "chunk": {},
    "padded": {**MIXED, "head_width": 24, "num_global": 3},
    "exact": {"shape": "exact", "heads": 1, "width": 11},
    "cyclic": {**MIXED, "shape": "cyclic"},
    "cyclic, one axis": {"shape": "cyclic", "height": 5, "heads": 1},
    "own": {"offsets": (OWN,), "heads": 1},
    "drawn": {"offsets": (OWN, NEIGHBOURS[2]), "heads": 1},
    "drawn, cyclic": {**MIXED, "offsets": (OWN, NEIGHBOURS[5]), "shape": "cyclic", "sizes": ((10, 8), (4, 8))},
    "no global token": {"num_global": 0, "heads": 1},
    "no bias": {"biased": False, "head_width": 8},
    "smaller than a window": {"height": 4, "width": 5, "window": 6, "head_width": 40},
    "many global tokens": {"height": 4, "width": 5, "num_global": 35, "heads": 1},
}


@pytest.fixture(autouse=True, scope="module")
def _prepared() -> Iterator[None]:
    triton_interpreter.repair()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # which fills new memory with NaN
    with mock.patch.object(launches, "BIAS_PROGRAMS", 4):  # 2 shares of the chunks
        yield


dense_windowed_attention: Callable[..., Tensor] = dense.dense_windowed_attention


def operands(case: Case, tensors: dict[str, Tensor]) -> tuple[Any, ...]:
    """Return the arguments of the operator."""
    given, drawn = case.settings(), None
    if len(case.offsets) == 2:
        drawn = torch.tensor([NEIGHBOURS.index(case.offsets[1])])
    tokens = (tensors["query"], tensors["key_value"], tensors["global_key_value"])
    biases = (tensors.get("table"), tensors.get("global_bias"))
    cyclic = case.shape == "cyclic"
    masks = (given["valid"], given["sizes"] if cyclic else None, drawn)
    return (*tokens, *biases, *masks, case.window, case.offsets == ALL, case.shape == "exact", cyclic, 0, 0)


def check(case: Case, dtype: torch.dtype) -> None:
    """Compare the result and all gradients with the oracle's, which has the same rounded inputs."""
    tensors = case.tensors(dtype)
    wide = {name: x.detach().double().requires_grad_() for name, x in tensors.items()}
    expected = dense_windowed_attention(**{"table": None, "global_bias": None, **wide}, **case.settings())
    cotangent = torch.randn(expected.shape, generator=torch.Generator().manual_seed(case.seed + 1)).to(dtype)
    out, _ = windowed_attention_triton(*operands(case, tensors))
    tolerance, of_gradients = TOLERANCES[dtype]
    assert out.dtype == dtype
    assert relative_error(out, expected) <= tolerance
    names = [name for name, x in tensors.items() if x.numel()]
    actual = torch.autograd.grad(out, [tensors[name] for name in names], cotangent)
    oracle = torch.autograd.grad(expected, [wide[name] for name in names], cotangent.double())
    gradients = dict(zip(names, zip(actual, oracle, strict=True), strict=True))
    # A lone global bias can be what is left of terms that cancel: its errors are as small as those of the table.
    of_table = gradients["table"][1].abs().max().item() if "table" in gradients else 0.0
    for name, (a, e) in gradients.items():
        assert a.dtype == dtype, name
        assert a.is_contiguous(), name
        magnitude = max(e.abs().max().item(), of_table if name == "global_bias" else 0.0) or 1.0
        assert (a.double() - e).abs().max().item() / magnitude <= of_gradients, name


@pytest.mark.parametrize("name", CASES)
def test_double(name: str) -> None:
    check(dataclasses.replace(EXAMPLE, **CASES[name]), DOUBLE)


@pytest.mark.parametrize(
    ("dtype", "name"), [(SINGLE, "padded"), (BFLOAT16, "padded"), (BFLOAT16, "cyclic"), (HALF, "cyclic")]
)
def test_each_type(dtype: torch.dtype, name: str) -> None:
    check(dataclasses.replace(EXAMPLE, **CASES[name]), dtype)


@st.composite
def small_cases(draw: st.DrawFn) -> Case:
    shape: Any = draw(st.sampled_from(["chunk", "exact", "cyclic"]))
    height, width, batch = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 2))
    offsets = st.sampled_from([ALL, (OWN,), *[(OWN, other) for other in NEIGHBOURS]])
    size = st.tuples(st.integers(1, height), st.integers(1, width))
    return Case(
        batch=batch,
        height=height,
        width=width,
        window=draw(st.integers(1, 5)) if height * width < 40 else draw(st.integers(3, 5)),
        heads=draw(st.integers(1, 2)),
        head_width=draw(st.sampled_from([1, 8, 16, 20])),
        num_global=draw(st.sampled_from([0, 1, 3])),
        shape=shape,
        offsets=ALL if shape == "exact" else draw(offsets),
        biased=draw(st.booleans()),
        sizes=draw(st.none() | st.tuples(*[size] * batch)),
        band_bytes=0,
        seed=draw(st.integers(0, 2**32 - 1)),
    )


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [SINGLE, BFLOAT16, HALF])
def test_each_type_at_length(dtype: torch.dtype, name: str) -> None:
    check(dataclasses.replace(EXAMPLE, **CASES[name]), dtype)


@settings(max_examples=5, deadline=None, derandomize=True, database=None)
@given(case=small_cases())
def test_drawn(case: Case) -> None:
    check(case, DOUBLE)


@pytest.mark.long
@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(case=small_cases(), dtype=st.sampled_from([DOUBLE, SINGLE]))
def test_many_drawn(case: Case, dtype: torch.dtype) -> None:
    check(case, dtype)


@pytest.mark.long
@pytest.mark.parametrize("window", [7, 15])
def test_published_windows(window: int) -> None:
    check(dataclasses.replace(EXAMPLE, window=window, height=17, width=16, heads=1, head_width=32), SINGLE)


def test_reads_tensors_where_linear_layers_left_them() -> None:
    case = dataclasses.replace(EXAMPLE, heads=3, head_width=8, height=5, num_global=2)
    qkv = torch.randn(1, 5, 8, 3, 3, 8, dtype=DOUBLE)
    of_global = torch.randn(1, 2, 3, 3, 8, dtype=DOUBLE)
    tensors = {**case.tensors(), "query": qkv[:, :, :, 0], "key_value": qkv[:, :, :, 1:]}
    tensors["global_key_value"] = of_global[:, :, 1:]
    expected = dense_windowed_attention(**tensors, **case.settings())
    assert relative_error(windowed_attention_triton(*operands(case, tensors))[0], expected) <= 1e-14
    for name, x in tensors.items():  # every axis, the channels included, may lie anywhere in memory
        axes = list(range(x.ndim))[::-1]
        tensors[name] = x.detach().permute(axes).contiguous().permute(axes)
    assert relative_error(windowed_attention_triton(*operands(case, tensors))[0], expected) <= 1e-14


@pytest.mark.parametrize("shape", ["chunk", "cyclic"])
def test_padding_is_never_seen(shape: Any) -> None:
    case = dataclasses.replace(EXAMPLE, **{**MIXED, "sizes": ((7, 8), (4, 5))}, height=7, shape=shape)
    valid = case.valid()
    assert valid is not None
    results = []
    for filler in (0.0, float("nan")):
        tensors = case.tensors()
        for name in ("query", "key_value"):
            padding = ~valid.view(*valid.shape, *[1] * (tensors[name].ndim - 3))
            tensors[name] = tensors[name].detach().masked_fill(padding, filler).requires_grad_()
        out, logsumexp = windowed_attention_triton(*operands(case, tensors))
        cotangent = torch.ones_like(out).masked_fill(~valid[..., None, None], filler)
        results.append([out, logsumexp, *torch.autograd.grad(out, list(tensors.values()), cotangent)])
    for zeros, poisoned in zip(*results, strict=True):
        assert torch.equal(zeros, poisoned)
    assert not results[0][0][~valid].any()


def test_every_missing_pixel_may_differ_and_queries_without_a_key_give_zeros() -> None:
    case = dataclasses.replace(EXAMPLE, num_global=0, heads=1)
    tensors = case.tensors()
    valid = torch.rand(1, 10, 8) < 0.5
    valid[:, 3:, :4] = False  # the chunk at (6, 0) sees some in other chunks; under `own` none
    for offsets, around in ((ALL, True), ((OWN,), False)):
        arguments = list(operands(case, tensors))
        arguments[5], arguments[9] = valid, around
        out, logsumexp = windowed_attention_triton(*arguments)
        expected = dense_windowed_attention(**tensors, **{**case.settings(), "valid": valid, "offsets": offsets})
        assert relative_error(out, expected) <= 1e-14
        assert logsumexp[0, 0][~valid[0]].eq(float("inf")).all()
        grads = torch.autograd.grad(out, list(tensors.values())[:2], torch.ones_like(out))
        assert all(grad.isfinite().all() for grad in grads)
    valid[:] = False
    assert not windowed_attention_triton(*arguments)[0].any()


def test_nan_in_a_key_reaches_who_sees_it() -> None:
    case = dataclasses.replace(EXAMPLE, offsets=(OWN,), heads=1, num_global=0)
    tensors = {name: x.detach() for name, x in case.tensors().items()}
    tensors["key_value"][0, 4, 4] = float("nan")
    out, _ = windowed_attention_triton(*operands(case, tensors))
    assert out[:, 3:6, 3:6].isnan().all()
    out[:, 3:6, 3:6] = 0
    assert out.isfinite().all()


def test_logsumexp() -> None:
    case = dataclasses.replace(EXAMPLE, biased=False, window=4, height=4, width=8)
    tensors = case.tensors()
    _, logsumexp = windowed_attention_triton(*operands(case, tensors))
    assert not logsumexp.requires_grad
    keys = torch.cat([tensors["global_key_value"][:, :, 0], tensors["key_value"][:, :, :, 0].flatten(1, 2)], dim=1)
    scores = torch.einsum("brchd,bkhd->bhrck", tensors["query"], keys) / 4  # two chunks see each other
    assert relative_error(logsumexp, scores.logsumexp(-1)) <= 1e-14


def test_large_logits_stay_finite() -> None:
    case = dataclasses.replace(EXAMPLE, heads=1, height=4)
    for dtype in (SINGLE, HALF):
        tensors = {name: (10 * x).detach().requires_grad_() for name, x in case.tensors(dtype).items()}
        out, _ = windowed_attention_triton(*operands(case, tensors))
        grads = torch.autograd.grad(out, list(tensors.values()), torch.ones_like(out))
        assert all(x.isfinite().all() for x in (out, *grads))


def test_bands_of_a_map_with_their_halo() -> None:
    case = dataclasses.replace(EXAMPLE, heads=1, sizes=((9, 8),))
    tensors = case.tensors()
    arguments = operands(case, tensors)
    whole, _ = windowed_attention_triton(*arguments)
    valid = case.valid()
    assert valid is not None
    for top, bottom in ((0, 3), (6, 10)):
        first, last = max(top - 3, 0), min(bottom + 3, 10)
        leaves = [x.detach().requires_grad_() for x in (tensors["query"], tensors["key_value"])]
        band = (leaves[0][:, top:bottom], leaves[1][:, first:last], *arguments[2:5], valid[:, first:last])
        out, _ = windowed_attention_triton(*band, *arguments[6:-2], top - first, 0)
        assert relative_error(out, whole[:, top:bottom]) <= 1e-14
        cotangent = torch.zeros_like(whole)
        cotangent[:, top:bottom] = 1
        actual = torch.autograd.grad(out, leaves, cotangent[:, top:bottom])
        expected = torch.autograd.grad(whole, [tensors["query"], tensors["key_value"]], cotangent, retain_graph=True)
        for a, e in zip(actual, expected, strict=True):
            assert relative_error(a, e) <= 1e-14


def test_shares_of_chunks_change_rounding_only() -> None:
    case = dataclasses.replace(EXAMPLE, heads=1, head_width=8)
    tensors = case.tensors()
    gradients = []
    for programs in (1, 100):
        with mock.patch.object(launches, "BIAS_PROGRAMS", programs):
            out, _ = windowed_attention_triton(*operands(case, tensors))
            gradients.append(torch.autograd.grad(out, tensors["table"], torch.ones_like(out))[0])
    assert 0 < relative_error(*gradients) <= 1e-14


def test_without_images() -> None:
    tensors = {name: x[:0] if x.ndim > 3 else x for name, x in EXAMPLE.tensors().items()}
    out, _ = windowed_attention_triton(*operands(EXAMPLE, tensors))
    assert out.shape == (0, 10, 8, 2, 16)
    assert not torch.autograd.grad(out.sum(), tensors["table"])[0].any()


@pytest.mark.parametrize("neighbours", ["all", "own", "random"])
@pytest.mark.parametrize("shape", ["chunk", "cyclic"])
def test_layer_equals_the_dense_one(neighbours: Any, shape: Any) -> None:
    attention = Windowed(window_size=3, shape=shape, neighbours=neighbours)
    stage = StageConfig(depth=1, width=8, num_heads=1, attention=attention)
    layer = build_attention(stage, grid=(10, 8))
    torch.nn.init.normal_(layer.position.table)  # type: ignore[union-attr, arg-type]
    x, global_tokens = torch.randn(2, 7, 10, 8), torch.randn(2, 1, 8)
    case = dataclasses.replace(EXAMPLE, batch=2, height=7, width=10, sizes=((7, 10), (7, 4)))
    padding = Padding(case.valid(), torch.tensor(case.sizes))
    results = []
    for on_gpu in (False, True):
        torch.manual_seed(3)
        set_attention_backend("dense")
        with mock.patch.object(windowed, "takes_triton", lambda _, on_gpu=on_gpu: on_gpu):
            results.append(layer(x, global_tokens, padding))
    set_attention_backend("auto")
    for expected, actual in zip(*results, strict=True):
        assert relative_error(actual, expected) <= 3e-6


@triton.jit
def _multiply(a, b, out, rounded):  # type: ignore[no-untyped-def]
    number = tl.arange(0, 16)
    at = number[:, None] * 16 + number[None, :]
    product = tl.dot(tl.load(a + at), tl.load(b + at))
    tl.store(out + at, product)
    tl.store(rounded + at, product.to(tl.bfloat16))


def test_repairs_of_the_interpreter_are_needed_and_right() -> None:
    a, b = torch.randn(16, 16).bfloat16(), torch.randn(16, 16).bfloat16()
    out, rounded, expected = torch.empty(16, 16), torch.empty(16, 16).bfloat16(), a.float() @ b.float()
    _multiply[(1,)](a, b, out, rounded)
    assert relative_error(out, expected) <= 1e-6
    assert torch.equal(rounded, out.bfloat16())
    builder = interpreter.InterpreterBuilder
    with (
        mock.patch.object(builder, "create_dot", triton_interpreter._multiply),
        mock.patch.object(builder, "cast_impl", triton_interpreter._cast),
        np.errstate(all="ignore"),
    ):
        _multiply[(1,)](a, b, out, rounded)
    assert not relative_error(out, expected) <= 1e-2  # else the repairs can go
