from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vision_longformer import (
    Full,
    GlobalOnly,
    Linformer,
    ModelConfig,
    Performer,
    SpatialReduction,
    StageConfig,
    VisionLongformer,
    Windowed,
)
from vision_longformer.attention import build_attention
from vision_longformer.config import Attention, Position
from vision_longformer.features.stage_pictures import alike_to_the_middle, attention_of_global_token, picture_stages
from vision_longformer.padding import UNPADDED, Padding

HEIGHT, WIDTH, CHANNELS, HEADS = 5, 7, 12, 3


def layer(attention: Attention, *, position: Position = "relative", num_global_tokens: int = 2) -> Any:
    stage = StageConfig(1, CHANNELS, HEADS, num_global_tokens=num_global_tokens, position=position, attention=attention)
    built = build_attention(stage, grid=(HEIGHT, WIDTH)).double()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.5)
    return built


@pytest.mark.parametrize("position", ["relative", "none"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    "attention",
    [Windowed(2), Windowed(2, shared_global_projections=False), GlobalOnly(shared_global_projections=False), Full()],
)
@torch.no_grad()
def test_a_global_token_attends_as_the_layer_computes_it(
    attention: Attention, padded: bool, position: Position
) -> None:
    """The layer's own output, with these weights put in by hand: every head has the same value channels to mix."""
    built = layer(attention, position=position)
    x, tokens = (torch.randn(1, *shape, CHANNELS, dtype=torch.float64) for shape in ((HEIGHT, WIDTH), (2,)))
    real_width = 5 if padded else WIDTH
    valid = torch.arange(WIDTH).expand(1, HEIGHT, WIDTH) < real_width
    padding = Padding(valid=valid, sizes=torch.tensor([[HEIGHT, real_width]])) if padded else UNPADDED
    weights = attention_of_global_token(built, x, tokens, padding) / (HEIGHT * real_width + 2)

    # values: 1 at one position of the map and 0 elsewhere, so that the output is the attention to that position
    projections = built.projections
    project = projections.qkv if projections.qkv_global is None else projections.qkv_global
    output = projections.proj if projections.proj_global is None else projections.proj_global
    output.weight.fill_(1 / CHANNELS)
    output.bias.zero_()
    split = projections.split

    def marked(row: int, column: int) -> Any:
        def split_with_marked_values(inputs: Tensor, projection: nn.Linear | None = None) -> Any:
            parts = split(inputs, projection)
            key_value = torch.stack([parts.key, torch.zeros_like(parts.value)], dim=-3)
            if inputs.ndim == 4 and (projection or projections.qkv) is project:
                key_value[:, row, column, 1] = 1
            return parts._replace(key_value=key_value)

        return split_with_marked_values

    for row, column in ((0, 0), (4, 3), (2, 6)):
        projections.split = marked(row, column)
        _, of_global = built(x, tokens, padding)
        torch.testing.assert_close(weights[0, row, column], of_global[0, 0, 0])
    assert (weights[valid] > 0).all()


def model(*, tokens: tuple[int, ...] = (1, 2, 1, 0), **options: Any) -> VisionLongformer:
    stages = tuple(
        StageConfig(2, 8 * 2**number, 2, 4 if number == 0 else 2, count, attention=Windowed(3))
        for number, count in enumerate(tokens)
    )
    return VisionLongformer(ModelConfig(stages, **options)).eval()


@pytest.mark.parametrize(("tokens", "stage"), [((1, 2, 1, 0), 3), ((1, 1, 0), 2), ((0, 0, 0, 3), 4), ((0, 0, 0), 0)])
def test_every_stage_and_the_last_global_tokens_are_seen(tokens: tuple[int, ...], stage: int) -> None:
    network, images = model(tokens=tokens), torch.randn(1, 3, 51, 70)
    with torch.inference_mode():
        expected = network(images)
        with picture_stages(network) as pictures:
            assert torch.equal(network(images), expected)
    assert [stage.tokens for stage in pictures.stages] == [(13, 18), (7, 9), (4, 5), (2, 3)][: len(tokens)]
    assert [stage.stride for stage in pictures.stages] == [4, 8, 16, 32][: len(tokens)]
    assert pictures.attention_stage == stage
    if stage:
        assert pictures.attention is not None
        assert pictures.attention.shape == pictures.stages[stage - 1].tokens
    else:
        assert pictures.attention is None


@pytest.mark.parametrize("first", [Windowed(3), None])
@pytest.mark.parametrize("attention", [Linformer(5), SpatialReduction(2), Performer(7)], ids=str)
def test_global_tokens_that_score_no_tokens_have_no_picture(attention: Attention, first: Attention | None) -> None:
    """The picture is that of the last stage whose global tokens score the tokens of the map, if there is one."""
    mechanisms = (first or attention, attention, attention)
    stages = tuple(StageConfig(1, 8, 2, position="none", attention=mechanism) for mechanism in mechanisms)
    network, images = VisionLongformer(ModelConfig(stages)).eval(), torch.randn(1, 3, 51, 70)
    with torch.inference_mode(), picture_stages(network) as pictures:
        network(images)
    assert len(pictures.stages) == 3
    assert pictures.attention_stage == (0 if first is None else 1)
    if first is None:
        assert pictures.attention is None
    else:
        assert pictures.attention is not None
        assert pictures.attention.shape == pictures.stages[0].tokens


def test_nothing_stays_on_the_model() -> None:
    network = model()
    with picture_stages(network) as pictures, torch.inference_mode():
        network(torch.randn(1, 3, 51, 70))
    with torch.inference_mode():
        network(torch.randn(1, 3, 51, 70))
    assert len(pictures.stages) == 4
    hooks: list[Tensor | nn.Module] = [m for m in network.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooks


def test_what_is_like_the_middle_has_its_cosine_and_padding_has_none() -> None:
    x = torch.randn(5, 7, 11)
    valid = torch.ones(5, 7, dtype=torch.bool)
    valid[:, 6] = valid[4] = False
    alike = alike_to_the_middle(x, valid)
    assert alike is not None
    assert alike[2, 3] == 1
    assert (alike[~valid] == 0).all()
    centred = x - x[valid].mean(0)
    cosine = centred[1, 2] @ centred[2, 3] / (centred[1, 2].norm() * centred[2, 3].norm())
    assert alike[1, 2].item() == pytest.approx((1 + cosine.item()) / 2, abs=1e-6)
    x[~valid] = float("nan")  # whatever padding holds
    again = alike_to_the_middle(x, valid)
    assert again is not None
    assert torch.equal(again, alike)


def test_an_empty_middle_is_like_nothing() -> None:
    valid = torch.zeros(4, 4, dtype=torch.bool)
    valid[0] = True
    assert alike_to_the_middle(torch.randn(4, 4, 3), valid) is None


def test_threads_that_share_a_model_see_what_they_pass_through_it_themselves() -> None:
    stages = tuple(StageConfig(1, 8 * 2**n, 2, 4 if n == 0 else 2, 1, attention=Windowed(3)) for n in range(3))
    model, together = VisionLongformer(ModelConfig(stages)).eval(), Barrier(4, timeout=60)

    def seen(height: int) -> list[tuple[int, int]]:
        with picture_stages(model) as pictures, torch.inference_mode():
            together.wait()  # all of them look, and pass their images through
            model(torch.randn(1, 3, height, 40))
            together.wait()
        return [stage.tokens for stage in pictures.stages]

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(seen, (16, 32, 48, 64)))
    assert found == [[(-(-height // stride), -(-40 // stride)) for stride in (4, 8, 16)] for height in (16, 32, 48, 64)]
