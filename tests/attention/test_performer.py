"""Random projections: their form, when they are drawn, and what they approximate."""

from __future__ import annotations

import math
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from attention.cases import relative_error
from model_helpers import MODELS, build, noise
from vision_longformer import VisionLongformer
from vision_longformer.attention import PerformerAttention
from vision_longformer.attention.performer import draw_projection
from vision_longformer.config import Performer
from vision_longformer.padding import Padding

CHANNELS, HEADS = 6, 2


def layer(num_features: int = 7, *, std: float = 0.5) -> PerformerAttention:
    attention = PerformerAttention(Performer(num_features=num_features), width=CHANNELS, num_heads=HEADS).double()
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=std)
    return attention


def layers_of(model: VisionLongformer) -> list[PerformerAttention]:
    return [module for module in model.modules() if isinstance(module, PerformerAttention)]


def projections_of(model: VisionLongformer) -> list[Tensor]:
    return [attention.projection for attention in layers_of(model)]


def trained_model(*, seed: int = 0, checkpointing: bool = False) -> VisionLongformer:
    model = build(MODELS["performer"], seed=seed, dtype=torch.float32).train()
    model.set_grad_checkpointing(checkpointing)
    return model


def step(model: VisionLongformer, number: int) -> Tensor:
    """Train on one batch; return the loss."""
    model.zero_grad()
    loss = cast(Tensor, model(noise(2, 3, 35, 46, seed=number, dtype=torch.float32)).square().sum())
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.sub_(0.01 * parameter.grad)
    return loss.detach()


# --- the form of a projection -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_features", "head_width"), [(10, 3), (3, 5), (8, 4), (5, 1)])
def test_blocks_of_orthogonal_rows(num_features: int, head_width: int) -> None:
    projection = draw_projection(num_features, head_width, seed=3, number=1)
    assert projection.shape == (num_features, head_width)
    assert projection.dtype == torch.float64
    for block in (projection / projection.norm(dim=1, keepdim=True)).split(head_width):
        torch.testing.assert_close(block @ block.T, torch.eye(len(block)).double(), rtol=0, atol=1e-14)


def test_rows_are_as_long_as_gaussian_vectors() -> None:
    count = 20_000
    for head_width in (2, 5):
        squares = draw_projection(count, head_width, seed=5, number=0).square().sum(dim=1)  # χ² of d degrees
        assert abs(squares.mean() - head_width) < 5 * math.sqrt(2 * head_width / count)
        fourth = 48 * head_width + 12 * head_width**2  # central moment
        assert abs(squares.var() - 2 * head_width) < 5 * math.sqrt((fourth - 4 * head_width**2) / count)
        rows = (squares - squares.mean()).unflatten(0, (-1, head_width))
        correlation = (rows[:, 0] * rows[:, 1]).mean() / squares.var()
        assert abs(correlation) < 5 / math.sqrt(count / head_width)  # rows of a block have lengths of their own
    squares = draw_projection(count, 2, seed=5, number=0).square().sum(dim=1)
    for share in (0.1, 0.5, 0.9):  # χ² of 2 degrees is exponential with mean 2
        below = (squares < -2 * math.log(1 - share)).double().mean()
        assert abs(below - share) < 5 * math.sqrt(share * (1 - share) / count)


def test_no_direction_is_preferred() -> None:
    count, head_width = 30_000, 3
    projection = draw_projection(count, head_width, seed=7, number=0)
    blocks = (projection / projection.norm(dim=1, keepdim=True)).unflatten(0, (-1, head_width))  # (blocks, row, d)
    blocks_count = count / head_width
    assert blocks.mean(dim=0).abs().max() < 5 / math.sqrt(head_width * blocks_count)
    moments = torch.einsum("bri,brj->rij", blocks, blocks) / blocks_count
    even = torch.eye(head_width).double() / head_width
    assert (moments - even).abs().max() < 5 / math.sqrt(blocks_count) / head_width


# --- when one is drawn --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_step_draws_once(checkpointing: bool) -> None:
    model = trained_model(checkpointing=checkpointing)
    for number in (1, 2):
        before = projections_of(model)
        step(model, number)
        assert [int(attention.draws[1]) for attention in layers_of(model)] == [number] * 5
        assert not any(torch.equal(*pair) for pair in zip(before, projections_of(model), strict=True))


def test_evaluation_draws_nothing() -> None:
    model = trained_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, second = (model(noise(2, 3, 35, 46, dtype=torch.float32)) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_draw_follows_from_seed_and_number() -> None:
    attention = layer()
    seed = int(attention.draws[0])
    for number in range(3):
        assert int(attention.draws[1]) == number
        expected = draw_projection(7, 3, seed=seed, number=number)
        # the first was drawn for a float32 layer
        assert relative_error(attention.projection, expected) <= (0 if number else 1e-7)
        attention.redraw()
    numbered = [draw_projection(7, 3, seed=seed + more, number=number) for more in (0, 1) for number in range(3)]
    assert len({tuple(projection.flatten().tolist()) for projection in numbered}) == 6


def test_layers_draw_differently_and_repeat_with_the_seed() -> None:
    torch.manual_seed(3)
    first = VisionLongformer(MODELS["performer"])
    torch.manual_seed(3)
    again, other = VisionLongformer(MODELS["performer"]), VisionLongformer(MODELS["performer"])
    for _ in range(2):
        for a, b, c in zip(*map(projections_of, (first, again, other)), strict=True):
            assert torch.equal(a, b)
            assert not torch.equal(a, c)
        blocks_of_stage_2 = projections_of(first)[1:3]
        assert not torch.equal(*blocks_of_stage_2)
        for model in (first, again, other):
            for attention in layers_of(model):
                attention.redraw()


def test_drawing_leaves_the_generator_of_torch_alone() -> None:
    model = trained_model()
    before = torch.get_rng_state()
    step(model, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_continued_training_draws_what_uninterrupted_training_does() -> None:
    model = trained_model()
    step(model, 1)
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert {name.rpartition(".")[2] for name in saved} >= {"projection", "draws"}
    continued = trained_model(seed=9)
    continued.load_state_dict(saved)
    for number in (2, 3):
        assert torch.equal(step(continued, number), step(model, number))
        for mine, theirs in zip(projections_of(continued), projections_of(model), strict=True):
            assert torch.equal(mine, theirs)


def test_activation_checkpointing_gives_the_same_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = trained_model(checkpointing=checkpointing)
        losses = [step(model, number) for number in (1, 2)]
        gradients.append([*losses, *[parameter.grad for parameter in model.parameters()]])
    for kept, computed_again in zip(*gradients, strict=True):
        assert torch.equal(kept, computed_again)


def test_a_projection_follows_the_precision_of_its_layer() -> None:
    attention = layer().to(torch.bfloat16).train()
    attention.redraw()
    assert attention.projection.dtype == torch.bfloat16
    assert attention.draws.dtype == torch.int64


# --- what it approximates -----------------------------------------------------------------------------------------


def test_a_batch_mate_with_huge_keys_changes_nothing() -> None:
    attention = layer()
    x, global_tokens = noise(2, 5, 7, CHANNELS), noise(2, 2, CHANNELS, seed=2)
    alone, global_alone = attention(x[:1], global_tokens[:1])
    x[1] *= 100
    together, global_together = attention(x, global_tokens)
    assert relative_error(together[:1], alone) <= 1e-14
    assert relative_error(global_together[:1], global_alone) <= 1e-14


def test_keys_of_padding_shift_no_features() -> None:
    """Padding is zero, so its key is the bias: here, far larger than any real key."""
    attention = layer()
    keys, first = slice(CHANNELS, 2 * CHANNELS), attention.projections.qkv
    with torch.no_grad():
        first.bias[keys] = 10 * attention.projection[0].repeat(HEADS)
        first.weight[keys, 0] = -first.bias[keys]
    x, global_tokens = noise(1, 5, 7, CHANNELS), noise(1, 2, CHANNELS, seed=2)
    x[..., 0] = global_tokens[..., 0] = 1  # takes the bias away again
    valid = torch.zeros(1, 5, 7, dtype=torch.bool)
    valid[:, :3, :4] = True
    padded, global_padded = attention(x, global_tokens, Padding(valid=valid, sizes=torch.tensor([[3, 4]])))
    alone, global_alone = attention(x[:, :3, :4], global_tokens)
    assert relative_error(padded[:, :3, :4], alone) <= 1e-13
    assert relative_error(global_padded, global_alone) <= 1e-13


def test_more_features_come_closer_to_softmax() -> None:
    x, global_tokens = noise(1, 5, 7, CHANNELS), noise(1, 2, CHANNELS, seed=2)
    errors = {}
    for num_features in (16, 256, 4096):
        torch.manual_seed(0)
        attention = layer(num_features, std=0.1)  # small logits: the approximation is poor for large ones
        tokens = torch.cat([global_tokens, x.flatten(1, 2)], dim=1)
        query, key, value = attention.projections.qkv(tokens).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        exact = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        expected = attention.projections.proj(exact)[:, 2:].view(x.shape)
        found = []
        for _ in range(10):
            attention.redraw()
            with torch.no_grad():
                found.append(relative_error(attention(x, global_tokens)[0], expected))
        errors[num_features] = sum(found) / len(found)
    assert errors[256] < errors[16] / 2
    assert errors[4096] < errors[256] / 2
    assert errors[4096] < 0.005
