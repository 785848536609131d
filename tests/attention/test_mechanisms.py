"""The mechanisms of the comparison against short dense oracles, image by image, over drawn shapes."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from attention.cases import relative_error
from vision_longformer.attention import (
    FullAttention,
    GlobalOnlyAttention,
    LinformerAttention,
    PerformerAttention,
    SpatialReductionAttention,
    build_attention,
    full,
    performer,
)
from vision_longformer.config import Attention, Full, GlobalOnly, Linformer, Performer, SpatialReduction, StageConfig
from vision_longformer.padding import UNPADDED, Padding


@dataclass(frozen=True)
class Case:
    """A layer, the shapes it runs at, and the seed of its numbers."""

    attention: Attention
    relative: bool
    batch: int
    height: int
    width: int
    grid: tuple[int, int]
    heads: int
    head_width: int
    num_global: int
    sizes: tuple[tuple[int, int], ...] | None
    holes: bool
    band_bytes: int
    seed: int

    @property
    def channels(self) -> int:
        return self.heads * self.head_width

    def layer(self) -> Any:
        stage = StageConfig(
            depth=1,
            width=self.channels,
            num_heads=self.heads,
            num_global_tokens=self.num_global,
            position="relative" if self.relative else "none",
            attention=self.attention,
        )
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            layer = build_attention(stage, grid=self.grid).double()
            for parameter in layer.parameters():
                nn.init.normal_(parameter, std=0.4)
        return layer

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return map, global tokens, and the cotangents of both results."""
        generator = torch.Generator().manual_seed(self.seed)
        on_map, of_global = (self.batch, self.height, self.width), (self.batch, self.num_global)
        shapes = [on_map, of_global, on_map, of_global]
        return tuple(  # type: ignore[return-value]
            torch.randn(*shape, self.channels, generator=generator, dtype=torch.float64) for shape in shapes
        )

    def padding(self) -> Padding:
        if self.sizes is None and not self.holes:
            return UNPADDED
        sizes = self.sizes or ((self.height, self.width),) * self.batch
        generator = torch.Generator().manual_seed(self.seed + 1)
        valid = torch.zeros(self.batch, self.height, self.width, dtype=torch.bool)
        for image, (height, width) in zip(valid, sizes, strict=True):
            real = torch.rand(height, width, generator=generator) < (0.6 if self.holes else 1.1)
            real[0, -1] = True
            image[:height, :width] = real
        return Padding(valid=valid, sizes=torch.tensor(sizes))


SIDES = st.integers(1, 13)
ATTENTIONS: dict[str, st.SearchStrategy[Attention]] = {
    "full": st.just(Full()),
    "global only": st.builds(GlobalOnly, st.booleans()),
    "linformer": st.builds(Linformer, st.integers(1, 11), st.booleans()),
    "spatial reduction": st.builds(SpatialReduction, st.integers(1, 7)),
    "performer": st.builds(Performer, st.integers(1, 17)),
}


@st.composite
def cases(draw: st.DrawFn, kind: str) -> Case:
    height, width, batch = draw(SIDES), draw(SIDES), draw(st.integers(1, 3))
    size = st.tuples(st.integers(1, height), st.integers(1, width))
    return Case(
        attention=draw(ATTENTIONS[kind]),
        relative=kind in ("full", "global only") and draw(st.booleans()),
        batch=batch,
        height=height,
        width=width,
        grid=draw(st.just((height, width)) | st.tuples(SIDES, SIDES)),
        heads=draw(st.integers(1, 3)),
        head_width=draw(st.sampled_from([1, 2, 3, 5])),
        num_global=draw(st.integers(1 if kind == "global only" else 0, 5)),
        sizes=draw(st.none() | st.tuples(*[size] * batch)),
        holes=draw(st.booleans()),
        band_bytes=draw(st.sampled_from([1 if kind == "full" else 15_000, 2**26])),
        seed=draw(st.integers(0, 2**31)),
    )


# --- the oracle: one image of its own size, its tokens in one sequence -------------------------------------------


def oracle(layer: Any, x: Tensor, global_tokens: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Attend from an image's (H, W, C) map and (G, C) global tokens; what of the map is real is (H, W)."""
    num_global = len(global_tokens)
    x = torch.where(valid[..., None], x, 0)
    tokens = torch.cat([global_tokens, x.flatten(0, 1)])
    real = torch.cat([torch.ones(num_global, dtype=torch.bool), valid.flatten()])
    if isinstance(layer, SpatialReductionAttention):
        out = _spatial_reduction(layer, x, tokens, global_tokens, valid)
    else:
        p = layer.projections
        qkv = p.qkv(tokens).unflatten(-1, (3, p.num_heads, -1)).permute(1, 2, 0, 3)  # (3, h, G + N, d)
        if isinstance(layer, LinformerAttention):
            heads = _linformer(layer, *qkv, real=real, size=x.shape[:2])
        elif isinstance(layer, PerformerAttention):
            heads = _performer(layer, *qkv, real=real)
        elif isinstance(layer, FullAttention):
            heads = _softmax(*qkv, bias=_full_bias(layer, num_global, x.shape[:2]), keys=real)
        else:
            heads = _softmax(*qkv, keys=torch.arange(len(tokens)) < num_global)
        out = p.proj(heads.transpose(0, 1).flatten(1))
        if isinstance(layer, GlobalOnlyAttention):
            own = (p.qkv_global or p.qkv)(tokens).unflatten(-1, (3, p.num_heads, -1)).permute(1, 2, 0, 3)
            bias = torch.zeros(p.num_heads, len(tokens), len(tokens), dtype=x.dtype)
            if layer.position is not None:
                to_map = layer.position.to_map[..., None].expand(-1, -1, len(tokens) - num_global)
                bias = torch.cat([layer.position.to_global, to_map], dim=2)
                bias = F.pad(bias, (0, 0, 0, len(tokens) - num_global))
            of_global = _softmax(*own, bias=bias, keys=real).transpose(0, 1).flatten(1)
            out = torch.cat([(p.proj_global or p.proj)(of_global)[:num_global], out[num_global:]])
    return out[num_global:].view(x.shape), out[:num_global]


def _softmax(query: Tensor, key: Tensor, value: Tensor, *, bias: Tensor | float = 0, keys: Tensor) -> Tensor:
    """Attend with (h, n, d) queries, keys and values; `keys` says which keys are real."""
    scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[2]) + bias
    return scores.masked_fill(~keys, float("-inf")).softmax(dim=2) @ value


def _linformer(
    layer: LinformerAttention, query: Tensor, key: Tensor, value: Tensor, *, real: Tensor, size: Any
) -> Tensor:
    def stretched(features: Tensor) -> Tensor:  # (G + N, k) for this image's map
        of_global, of_map = features[: layer.num_global_tokens], features[layer.num_global_tokens :]
        of_map = of_map.T.unflatten(1, layer.grid)[None]
        of_map = F.interpolate(of_map, size=tuple(size), mode="bilinear", align_corners=False)
        return torch.cat([of_global, of_map[0].flatten(1).T])

    key_features = stretched(layer.key_features) * real[:, None]
    value_features = key_features
    if layer.value_features is not None:
        value_features = stretched(layer.value_features) * real[:, None]
    every = torch.ones(key_features.shape[1], dtype=torch.bool)
    return _softmax(query, key_features.T @ key, value_features.T @ value, keys=every)


def _spatial_reduction(
    layer: SpatialReductionAttention, x: Tensor, tokens: Tensor, global_tokens: Tensor, valid: Tensor
) -> Tensor:
    ratio = layer.ratio
    padding = (0, -x.shape[1] % ratio, 0, -x.shape[0] % ratio)
    reduced = F.conv2d(F.pad(x.permute(2, 0, 1), padding)[None], layer.reduction.weight, stride=ratio)[0]
    kept = F.max_pool2d(F.pad(valid[None].double(), padding), ratio)[0] > 0
    if kept.all() and kept.numel() > 1:
        normed = F.instance_norm(reduced[None], eps=1e-5)[0, :, kept].T
    else:
        on_kept = reduced[:, kept].T  # (n, C)
        normed = (on_kept - on_kept.mean(0)) / (on_kept.var(0, correction=0) + 1e-5).sqrt()
    key_value = layer.key_value(torch.cat([global_tokens, normed])).unflatten(-1, (2, layer.num_heads, -1))
    key, value = key_value.permute(1, 2, 0, 3)
    query = layer.query(tokens).unflatten(-1, (layer.num_heads, -1)).transpose(0, 1)
    out = _softmax(query, key, value, keys=torch.ones(key.shape[1], dtype=torch.bool))
    projected: Tensor = layer.proj(out.transpose(0, 1).flatten(1))
    return projected


def _performer(layer: PerformerAttention, query: Tensor, key: Tensor, value: Tensor, *, real: Tensor) -> Tensor:
    projection = layer.projection
    num_features, head_width = projection.shape

    def features(x: Tensor, *, is_query: bool) -> Tensor:
        x = x * head_width**-0.25
        projected = x @ projection.T
        largest = projected.amax(dim=2, keepdim=True) if is_query else projected.max()
        square = (x**2).sum(dim=2, keepdim=True) / 2
        positive: Tensor = torch.exp(projected - square - largest) + 1e-4
        return positive / math.sqrt(num_features)

    of_queries, of_keys = features(query, is_query=True), features(key[:, real], is_query=False)
    weights = of_queries @ of_keys.transpose(1, 2)
    return weights @ value[:, real] / weights.sum(dim=2, keepdim=True)


def _full_bias(layer: FullAttention, num_global: int, size: Any) -> Tensor | float:
    if layer.position is None:
        return 0
    height, width = size
    table = layer.position.table.T.unflatten(1, (2 * layer.grid[0] - 1, 2 * layer.grid[1] - 1))[None]
    table = F.interpolate(table, size=(2 * height - 1, 2 * width - 1), mode="bilinear", align_corners=False)[0]
    rows, columns = (index.flatten() for index in torch.meshgrid(*map(torch.arange, size), indexing="ij"))
    steps = [(axis[:, None] - axis) + length - 1 for axis, length in zip((rows, columns), size, strict=True)]
    bias = F.pad(table[:, steps[0], steps[1]], (num_global, 0, num_global, 0))
    queries, to_global = layer.position.global_queries, layer.position.to_global
    if queries is not None and to_global is not None:
        of_global = torch.cat([queries.to_global, queries.to_map[..., None].expand(-1, -1, height * width)], dim=2)
        on_global = F.pad(to_global[:, None].expand(-1, height * width, -1), (0, height * width))
        bias = bias + torch.cat([of_global, on_global], dim=1)
    return bias


# --- the layers against it ----------------------------------------------------------------------------------------


def run(case: Case, layer: Any, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Return results, zero at padding, and the gradients of inputs and parameters."""
    x, global_tokens, cotangent, global_cotangent = case.tensors()
    padding = case.padding()
    leaves = [tensor.to(dtype).requires_grad_() for tensor in (x, global_tokens)]
    with ExitStack() as stack:
        for module in (full, performer):
            stack.enter_context(mock.patch.object(module, "BAND_BYTES", case.band_bytes))
        out, global_out = layer.to(dtype)(*leaves, padding)
        real = torch.ones(x.shape[:3], dtype=torch.bool) if padding.valid is None else padding.valid
        out = torch.where(real[..., None], out, 0)
        return _with_gradients(layer, out, global_out, leaves, (cotangent, global_cotangent))


def expected_of(case: Case, layer: Any) -> dict[str, Tensor]:
    x, global_tokens, cotangent, global_cotangent = case.tensors()
    leaves = [tensor.requires_grad_() for tensor in (x, global_tokens)]
    padding = case.padding()
    if padding is UNPADDED:
        padding = Padding(torch.ones(x.shape[:3], dtype=torch.bool), torch.tensor([x.shape[1:3]] * case.batch))
    assert padding.valid is not None
    assert padding.sizes is not None
    out, global_out = torch.zeros_like(x), torch.zeros_like(global_tokens)
    for image, (height, width) in enumerate(padding.sizes.tolist()):
        valid = padding.valid[image, :height, :width]
        of_map, of_global = oracle(layer, x[image, :height, :width], global_tokens[image], valid)
        out[image, :height, :width] = torch.where(valid[..., None], of_map, 0)
        global_out[image] = of_global
    return _with_gradients(layer, out, global_out, leaves, (cotangent, global_cotangent))


def _with_gradients(
    layer: nn.Module, out: Tensor, global_out: Tensor, leaves: list[Tensor], cotangents: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    names, parameters = zip(*layer.named_parameters(), strict=True)
    loss = (out * cotangents[0].to(out.dtype)).sum() + (global_out * cotangents[1].to(out.dtype)).sum()
    gradients = torch.autograd.grad(loss, [*leaves, *parameters], materialize_grads=True)
    results = {"out": out, "global out": global_out}
    return results | dict(zip(("x", "global tokens", *names), gradients, strict=True))


def check(case: Case) -> None:
    layer = case.layer()
    expected, actual = expected_of(case, layer), run(case, layer)
    # Some gradients are what is left of terms that cancel, as those of keys' biases: rounding is that of the terms.
    terms = max(tensor.abs().max().item() for name, tensor in expected.items() if tensor.numel() and "out" not in name)
    for name, tensor in expected.items():
        if tensor.numel():
            magnitude = tensor.abs().max().item()
            floor = 0.0 if "out" in name else terms / 100
            assert (actual[name] - tensor).abs().max().item() <= 1e-12 * max(magnitude, floor), name
    padding = case.padding()
    if padding.valid is not None:
        assert not actual["x"][~padding.valid].any()
    single = run(case, layer, torch.float32)
    for name in ("out", "global out"):
        assert relative_error(single[name], expected[name]) <= 1e-5, name


@pytest.mark.parametrize("kind", ["full", "global only"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_mechanisms_with_biases(kind: str, data: st.DataObject) -> None:
    check(data.draw(cases(kind)))


@pytest.mark.parametrize("kind", ["linformer", "spatial reduction", "performer"])
@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_mechanisms_of_linear_cost(kind: str, data: st.DataObject) -> None:
    check(data.draw(cases(kind)))


@pytest.mark.parametrize("size", [(3, 5), (1, 15), (15, 1)])
def test_linformer_on_another_map_of_as_many_tokens(size: tuple[int, int]) -> None:
    check(replace(EXAMPLE, attention=THREE[0], height=size[0], width=size[1], sizes=None, holes=False))


# --- padding and limits -------------------------------------------------------------------------------------------

EXAMPLE = Case(
    attention=Performer(num_features=7),
    relative=False,
    batch=2,
    height=11,
    width=7,
    grid=(5, 3),
    heads=2,
    head_width=3,
    num_global=2,
    sizes=((11, 7), (5, 4)),
    holes=True,
    band_bytes=3000,
    seed=1,
)
THREE: list[Attention] = [
    Linformer(num_features=5, shared_projection=False),
    SpatialReduction(ratio=3),
    Performer(num_features=7),
]


@pytest.mark.parametrize("canary", [float("nan"), 1e30])
@pytest.mark.parametrize("attention", THREE, ids=str)
def test_padding_is_never_seen(attention: Attention, canary: float) -> None:
    """Not by results, and not by gradients that sum over tokens."""
    case = replace(EXAMPLE, attention=attention)
    padding = case.padding()
    assert padding.valid is not None
    x, *others = case.tensors()
    results = []
    for filler in (0.0, canary):
        filled = x.masked_fill(~padding.valid[..., None], filler)
        with mock.patch.object(Case, "tensors", return_value=(filled, *others)):
            results.append(run(case, case.layer()))
    for name, clean in results[0].items():
        assert torch.equal(results[1][name], clean), name
        assert clean.isfinite().all(), name


@pytest.mark.parametrize("num_global", [0, 2])
@pytest.mark.parametrize("attention", THREE, ids=str)
def test_an_image_without_anything_real_stays_finite(attention: Attention, num_global: int) -> None:
    case = replace(EXAMPLE, attention=attention, num_global=num_global, sizes=None)
    padding = case.padding()
    assert padding.valid is not None
    padding.valid[1] = False
    with mock.patch.object(Case, "padding", return_value=padding):
        results = run(case, case.layer())
    assert all(result.isfinite().all() for result in results.values())


def test_a_reduced_map_of_one_position_is_zero() -> None:
    case = replace(EXAMPLE, attention=SpatialReduction(ratio=11), holes=False, sizes=None, num_global=0)
    layer, (x, global_tokens, *_) = case.layer(), case.tensors()
    value_bias = layer.key_value.bias[case.channels :]
    out, _ = layer(x, global_tokens)
    assert relative_error(out, layer.proj(value_bias).expand_as(out)) <= 1e-14


def test_spatial_reduction_refuses_what_would_take_minutes() -> None:
    layer = replace(EXAMPLE, attention=SpatialReduction(ratio=2)).layer().to("meta")
    x, global_tokens = torch.empty(1, 1500, 2000, 6, device="meta"), torch.empty(1, 2, 6, device="meta")
    message = r"spatial reduction by 2×2 over a map of 1500×2000 tokens needs 2\.7e\+13 multiply-adds"
    with pytest.raises(ValueError, match=message):
        layer(x, global_tokens)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attention", THREE, ids=str)
def test_half_precision_stays_finite_and_close(attention: Attention, dtype: torch.dtype) -> None:
    case = replace(EXAMPLE, attention=attention)
    layer = case.layer()
    expected, actual = expected_of(case, layer), run(case, layer, dtype)
    for name in ("out", "global out"):
        assert actual[name].isfinite().all()
        assert relative_error(actual[name], expected[name]) <= 10 * torch.finfo(dtype).eps
