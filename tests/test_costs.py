"""Multiply-adds are the sum of the terms that the paper counts."""

from __future__ import annotations

import pytest
import torch

from vision_longformer import (
    Full,
    GlobalOnly,
    Linformer,
    ModelConfig,
    Performer,
    SpatialReduction,
    StageConfig,
    Windowed,
    multiply_adds,
)
from vision_longformer.attention.dense import dense_windowed_attention
from vision_longformer.attention.geometry import ALL
from vision_longformer.config import Attention, Neighbours, WindowShape
from vision_longformer.costs import (
    attention_multiply_adds,
    linear_multiply_adds,
    needed_attention_multiply_adds,
    needed_multiply_adds,
    pairs_along_axis,
)

WIDTH, GLOBALS, GRID = 10, 3, (7, 11)
TOKENS, SQUARE = 77, 100


def stage_of(attention: Attention, *, num_global_tokens: int = GLOBALS) -> StageConfig:
    return StageConfig(1, WIDTH, 2, num_global_tokens=num_global_tokens, position="none", attention=attention)


@pytest.mark.parametrize(
    ("attention", "expected"),
    [
        (Windowed(window_size=5), 2 * WIDTH * (TOKENS * (9 * 25 + GLOBALS) + GLOBALS * TOKENS)),
        (Full(), 2 * WIDTH * TOKENS**2),
        (GlobalOnly(), 2 * WIDTH * 2 * GLOBALS * TOKENS),
        (Linformer(num_features=13), 4 * WIDTH * TOKENS * 13),
        (SpatialReduction(ratio=3), 2 * WIDTH * TOKENS * (3 * 4 + GLOBALS)),  # ⌈7/3⌉ × ⌈11/3⌉
        (SpatialReduction(ratio=1), 2 * WIDTH * TOKENS * (TOKENS + GLOBALS)),
        (Performer(num_features=13), 4 * WIDTH * TOKENS * 13),
    ],
    ids=str,
)
def test_attention(attention: Attention, expected: int) -> None:
    assert attention_multiply_adds(stage_of(attention), GRID) == expected


@pytest.mark.parametrize(
    ("attention", "expected"),
    [
        *((a, 12 * TOKENS * SQUARE) for a in (Windowed(), Full(), GlobalOnly(), Linformer(13), Performer(13))),
        (Windowed(shared_global_projections=False), 14 * TOKENS * SQUARE),
        (GlobalOnly(shared_global_projections=False), 14 * TOKENS * SQUARE),
        # queries, output and MLP; the convolution over whole squares of 3×3 tokens; keys and values
        (SpatialReduction(ratio=3), (10 * TOKENS + 9 * 12 + 2 * 12) * SQUARE),
    ],
    ids=str,
)
def test_linear_layers(attention: Attention, expected: int) -> None:
    assert linear_multiply_adds(stage_of(attention), GRID) == expected


def test_projections_of_no_global_token_cost_nothing() -> None:
    stage = stage_of(Windowed(shared_global_projections=False), num_global_tokens=0)
    assert linear_multiply_adds(stage, GRID) == 12 * TOKENS * SQUARE


def test_a_model_adds_patches_blocks_and_classifier() -> None:
    stages = tuple(
        StageConfig(depth=depth, width=width, num_heads=1, patch_size=patch, num_global_tokens=0, attention=Full())
        for depth, width, patch in ((1, 6, 3), (2, 10, 2), (3, 14, 2))
    )
    config = ModelConfig(stages, in_chans=5, num_classes=11)
    tokens = (11 * 16, 6 * 8, 3 * 4)  # of 31×46 pixels, rounded up at each stage
    patches = tokens[0] * 6 * 5 * 9 + tokens[1] * 10 * 6 * 4 + tokens[2] * 14 * 10 * 4
    blocks = sum(
        depth * (12 * n * width**2 + 2 * width * n**2)
        for depth, width, n in zip((1, 2, 3), (6, 10, 14), tokens, strict=True)
    )
    assert multiply_adds(config, (31, 46)) == patches + blocks + 14 * 11


def test_which_costs_are_linear_in_the_number_of_pixels() -> None:
    def blocks(attention: Attention, side: int) -> int:
        stage = StageConfig(1, 8, 1, position="none", attention=attention)
        return multiply_adds(ModelConfig((stage,) * 3, num_classes=0), (side, side))

    for attention in (Windowed(), GlobalOnly(), Linformer(), Performer()):
        assert blocks(attention, 512) == 4 * blocks(attention, 256)
    assert blocks(Full(), 512) > 15 * blocks(Full(), 256)
    assert blocks(SpatialReduction(2), 512) > 15 * blocks(SpatialReduction(2), 256)


def visible_positions(grid: tuple[int, int], attention: Windowed) -> int:
    """Count the (query, key) pairs of map tokens that the dense oracle gives any weight."""
    tokens = grid[0] * grid[1]
    one_for_each = torch.eye(tokens).reshape(1, *grid, 1, tokens)  # what a token's value is known by
    out = dense_windowed_attention(
        torch.zeros(1, *grid, 1, tokens),
        torch.stack([one_for_each] * 2, dim=3),
        torch.zeros(1, 0, 2, 1, tokens),
        table=None,
        global_bias=None,
        valid=None,
        window=attention.window_size,
        shape=attention.shape,
        offsets=[(0, 0)] if attention.neighbours == "own" else ALL,
    )
    return int((out > 0).sum())


@pytest.mark.parametrize("shape", ["chunk", "exact", "cyclic"])
@pytest.mark.parametrize("neighbours", ["all", "own"])
@pytest.mark.parametrize("grid", [(7, 11), (3, 13), (5, 16)])
def test_needed_pairs_are_those_that_the_oracle_leaves_unmasked(
    shape: WindowShape, neighbours: Neighbours, grid: tuple[int, int]
) -> None:
    attention = Windowed(window_size=5, shape=shape, neighbours=neighbours)
    visible = visible_positions(grid, attention)
    assert pairs_along_axis(grid[0], attention) * pairs_along_axis(grid[1], attention) == visible
    stage, tokens = stage_of(attention), grid[0] * grid[1]
    assert needed_attention_multiply_adds(stage, grid) == 2 * WIDTH * (visible + 2 * GLOBALS * tokens)


def test_needed_multiply_adds_leave_out_what_lies_beyond_the_edges() -> None:
    def config(attention: Attention) -> ModelConfig:
        stages = [StageConfig(2, WIDTH, 2, patch_size=p, position="none", attention=attention) for p in (4, 2, 2)]
        return ModelConfig(tuple(stages), num_classes=3)

    size, grids = (25, 44), [(7, 11), (4, 6), (2, 3)]
    windowed, full = config(Windowed(5)), config(Full())
    saved = sum(
        2 * (attention_multiply_adds(stage, grid) - needed_attention_multiply_adds(stage, grid))
        for stage, grid in zip(windowed.stages, grids, strict=True)
    )
    assert saved > 0
    assert multiply_adds(windowed, size) - needed_multiply_adds(windowed, size) == saved
    assert needed_multiply_adds(full, size) == multiply_adds(full, size)
