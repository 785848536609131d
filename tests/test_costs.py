"""Multiply-adds are the sum of the terms that the paper counts."""

from __future__ import annotations

import pytest

from vision_longformer import Full, GlobalOnly, ModelConfig, StageConfig, Windowed, multiply_adds
from vision_longformer.config import Attention
from vision_longformer.costs import attention_multiply_adds

WIDTH, GLOBALS, GRID = 10, 3, (7, 11)
TOKENS = 77


@pytest.mark.parametrize(
    ("attention", "expected"),
    [
        (Windowed(window_size=5), 2 * WIDTH * (TOKENS * (9 * 25 + GLOBALS) + GLOBALS * TOKENS)),
        (
            Windowed(window_size=5, shared_global_projections=False),
            2 * WIDTH * (TOKENS * (9 * 25 + GLOBALS) + GLOBALS * TOKENS) + 2 * TOKENS * WIDTH**2,
        ),
        (Full(), 2 * WIDTH * TOKENS**2),
        (GlobalOnly(), 2 * WIDTH * 2 * GLOBALS * TOKENS),
        (GlobalOnly(shared_global_projections=False), 4 * WIDTH * GLOBALS * TOKENS + 2 * TOKENS * WIDTH**2),
    ],
)
def test_attention(attention: Attention, expected: int) -> None:
    stage = StageConfig(depth=1, width=WIDTH, num_heads=2, num_global_tokens=GLOBALS, attention=attention)
    assert attention_multiply_adds(stage, TOKENS) == expected


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


def test_windowed_cost_is_linear_and_full_cost_quadratic() -> None:
    def blocks(attention: Attention, side: int) -> int:
        stage = StageConfig(depth=1, width=8, num_heads=1, patch_size=2, attention=attention)
        return multiply_adds(ModelConfig((stage,) * 3, num_classes=0), (side, side))

    assert blocks(Windowed(), 512) == 4 * blocks(Windowed(), 256)
    assert blocks(Full(), 512) > 15 * blocks(Full(), 256)
