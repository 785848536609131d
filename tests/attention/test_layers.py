"""Attention layers as wholes, against one dense oracle over the sequence [global tokens | map]."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from attention.cases import relative_error
from vision_longformer.attention import FullAttention, WindowedAttention, build_attention, full
from vision_longformer.attention.geometry import NEIGHBOURS
from vision_longformer.attention.position import GlobalQueryBias, RelativePositionBias
from vision_longformer.config import Attention, Full, GlobalOnly, StageConfig, Windowed
from vision_longformer.padding import UNPADDED, Padding

HEIGHT, WIDTH, WINDOW, HEADS, CHANNELS = 7, 5, 3, 2, 6
ATTENTIONS: list[Attention] = [
    Windowed(window_size=WINDOW),
    Windowed(window_size=WINDOW, shared_global_projections=False),
    Full(),
    GlobalOnly(),
    GlobalOnly(shared_global_projections=False),
]


def build(attention: Attention, *, num_global: int = 2, position: Any = "relative") -> Any:
    stage = StageConfig(1, CHANNELS, HEADS, num_global_tokens=num_global, position=position, attention=attention)
    layer = build_attention(stage, grid=(HEIGHT, WIDTH)).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def visible_and_bias(layer: Any, valid: Tensor, num_global: int) -> tuple[Tensor, Tensor]:
    """Return (G + N, G + N) visibility of an image and (h, G + N, G + N) biases, pair by pair from the definitions."""
    tokens = [None] * num_global + [(r, c) for r in range(HEIGHT) for c in range(WIDTH)]
    visible = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    bias = torch.zeros(HEADS, len(tokens), len(tokens), dtype=torch.float64)
    position = layer.position
    queries = position.global_queries if isinstance(position, RelativePositionBias) else position
    for i, query in enumerate(tokens):
        for j, key in enumerate(tokens):
            real = key is None or bool(valid[key])
            if query is None:
                visible[i, j] = real
                if isinstance(queries, GlobalQueryBias):
                    bias[:, i, j] = queries.to_global[:, i, j] if key is None else queries.to_map[:, i]
                continue
            if key is None:
                visible[i, j] = True
                if isinstance(position, RelativePositionBias) and position.to_global is not None:
                    bias[:, i, j] = position.to_global[:, j]
                continue
            dr, dc = query[0] - key[0], query[1] - key[1]
            if isinstance(layer, WindowedAttention):
                chunks = [query[axis] // WINDOW - key[axis] // WINDOW for axis in (0, 1)]
                visible[i, j] = real and max(map(abs, chunks)) <= 1
                row = (dr + 2 * WINDOW - 1) * (4 * WINDOW - 1) + dc + 2 * WINDOW - 1
            else:
                visible[i, j] = real and isinstance(layer, FullAttention)
                row = (dr + HEIGHT - 1) * (2 * WIDTH - 1) + dc + WIDTH - 1
            if isinstance(position, RelativePositionBias) and visible[i, j]:
                bias[:, i, j] = position.table[row]
    return visible, bias


def oracle(layer: Any, x: Tensor, global_tokens: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Attend from and to one image's (H, W, C) map and (G, C) global tokens."""
    num_global = len(global_tokens)
    sequence = torch.cat([global_tokens, x.flatten(0, 1)])
    visible, bias = visible_and_bias(layer, valid, num_global)

    def attend(qkv: nn.Linear, proj: nn.Linear, rows: slice) -> Tensor:
        query, key, value = qkv(sequence).unflatten(-1, (3, HEADS, -1)).permute(1, 2, 0, 3)
        scores = query @ key.transpose(1, 2) * (CHANNELS // HEADS) ** -0.5 + bias
        weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)[:, rows]
        out: Tensor = proj((weights @ value).transpose(0, 1).flatten(1))
        return out

    p = layer.projections
    local = attend(p.qkv, p.proj, slice(num_global, None)).view(HEIGHT, WIDTH, -1)
    of_global = attend(p.qkv_global or p.qkv, p.proj_global or p.proj, slice(num_global))
    return local, of_global


@pytest.mark.parametrize("position", ["relative", "none"])
@pytest.mark.parametrize("attention", ATTENTIONS, ids=str)
def test_layer_equals_oracle_over_the_whole_sequence(attention: Attention, position: Any) -> None:
    layer = build(attention, position=position)
    x, global_tokens = torch.randn(2, HEIGHT, WIDTH, CHANNELS).double(), torch.randn(2, 2, CHANNELS).double()
    valid = torch.rand(2, HEIGHT, WIDTH) < 0.7
    valid[0] = True
    padding = Padding(valid=valid, sizes=torch.tensor([[HEIGHT, WIDTH]] * 2))
    for seen in (UNPADDED, padding):
        out, global_out = layer(x, global_tokens, seen)
        for image in range(2):
            real = torch.ones(HEIGHT, WIDTH, dtype=torch.bool) if seen is UNPADDED else valid[image]
            expected, global_expected = oracle(layer, x[image], global_tokens[image], real)
            assert relative_error(out[image][real], expected[real]) <= 1e-14
            assert relative_error(global_out[image], global_expected) <= 1e-14


@pytest.mark.parametrize("attention", [Windowed(window_size=WINDOW), Full()], ids=str)
def test_layer_without_global_tokens(attention: Attention) -> None:
    layer = build(attention, num_global=0)
    x, none = torch.randn(1, HEIGHT, WIDTH, CHANNELS).double(), torch.empty(1, 0, CHANNELS).double()
    out, global_out = layer(x, none)
    expected, _ = oracle(layer, x[0], none[0], torch.ones(HEIGHT, WIDTH, dtype=torch.bool))
    assert relative_error(out[0], expected) <= 1e-14
    assert global_out.shape == (1, 0, CHANNELS)


def test_full_attention_in_bands_equals_one_pass() -> None:
    layer = build(Full())
    inputs = [torch.randn(2, 9, WIDTH, CHANNELS).double().requires_grad_(), torch.randn(2, 2, CHANNELS).double()]
    results = []
    for band_bytes in (1, full.BAND_BYTES):
        with mock.patch.object(full, "BAND_BYTES", band_bytes):
            out, _ = layer(*inputs)
            gradients = torch.autograd.grad(out.square().sum(), [inputs[0], layer.position.table])
        results.append((out, *gradients))
    for in_bands, in_one in zip(*results, strict=True):
        assert relative_error(in_bands, in_one) <= 1e-14


def test_full_attention_resizes_its_table_to_each_image() -> None:
    layer = build(Full())
    sizes = torch.tensor([[9, 4], [6, 8]])
    valid = torch.zeros(2, 9, 8, dtype=torch.bool)
    for real, (height, width) in zip(valid, sizes.tolist(), strict=True):
        real[:height, :width] = True
    x, global_tokens = torch.randn(2, 9, 8, CHANNELS).double(), torch.randn(2, 2, CHANNELS).double()
    together, global_together = layer(x, global_tokens, Padding(valid=valid, sizes=sizes))
    for image, (height, width) in enumerate(sizes.tolist()):
        alone, global_alone = layer(x[image : image + 1, :height, :width], global_tokens[image : image + 1])
        assert relative_error(together[image, :height, :width], alone[0]) <= 1e-14
        assert relative_error(global_together[image], global_alone[0]) <= 1e-14


def test_full_attention_refuses_what_would_take_minutes() -> None:
    layer = build(Full())
    x = torch.empty(1, 1000, 2000, CHANNELS, device="meta")
    with pytest.raises(ValueError, match=r"1000×2000 tokens needs 4\.8e\+13 multiply-adds.*--windowed"):
        layer.to("meta")(x, torch.empty(1, 2, CHANNELS, device="meta"))


def test_random_shift_draws_each_neighbour_in_training_and_none_in_evaluation() -> None:
    layer = build(Windowed(window_size=WINDOW, neighbours="random"))
    drawn = {tuple(layer.train()._offsets()[1].tolist()) for _ in range(200)}
    assert drawn == set(NEIGHBOURS)
    assert len(layer.eval()._offsets()) == 9
    torch.manual_seed(5)
    first = layer.train()._offsets()
    torch.manual_seed(5)
    assert torch.equal(layer._offsets(), first)


@pytest.mark.parametrize("attention", ATTENTIONS, ids=str)
@pytest.mark.parametrize("canary", [1e30, float("nan")])
def test_padded_map_tokens_are_never_seen(attention: Attention, canary: float) -> None:
    layer = build(attention)
    valid = torch.rand(2, HEIGHT, WIDTH) < 0.7
    padding = Padding(valid=valid, sizes=torch.tensor([[HEIGHT, WIDTH]] * 2))
    x, global_tokens = torch.randn(2, HEIGHT, WIDTH, CHANNELS).double(), torch.randn(2, 2, CHANNELS).double()
    results = []
    for filler in (0.0, canary):
        out, global_out = layer(x.masked_fill(~valid[..., None], filler), global_tokens, padding)
        results.append((out[valid], global_out))
    for clean, canaried in zip(*results, strict=True):
        assert torch.equal(clean, canaried)
