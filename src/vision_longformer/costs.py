"""What a model costs, counted as the paper counts it.

Multiply-adds cover the patch convolutions, linear layers, attention products and classifier. As in the published
figures, every token is taken to see all nine chunks, and global tokens are left out of the linear layers.
"""

from __future__ import annotations

from vision_longformer.config import Full, GlobalOnly, ModelConfig, StageConfig, Windowed


def multiply_adds(config: ModelConfig, size: tuple[int, int]) -> int:
    """Return the multiply-adds of one image of (height, width) `size` in pixels (paper, table 2 and appendix)."""
    total, in_chans, grid = 0, config.in_chans, size
    for stage in config.stages:
        grid = (-(-grid[0] // stage.patch_size), -(-grid[1] // stage.patch_size))
        tokens = grid[0] * grid[1]
        total += tokens * stage.width * in_chans * stage.patch_size**2
        total += stage.depth * (12 * tokens * stage.width**2 + attention_multiply_adds(stage, tokens))
        in_chans = stage.width
    return total + in_chans * config.num_classes


def attention_multiply_adds(stage: StageConfig, tokens: int) -> int:
    """Return the multiply-adds of one layer's products of queries, keys and values, and of global projections."""
    num_global, width = stage.num_global_tokens, stage.width
    match stage.attention:
        case Full():
            return 2 * width * tokens**2
        case Windowed(window_size=window, shared_global_projections=shared):
            pairs = tokens * (9 * window**2 + num_global) + num_global * tokens
        case GlobalOnly(shared_global_projections=shared):
            pairs = 2 * tokens * num_global
    separate = 0 if shared or num_global == 0 else 2 * tokens * width**2
    return 2 * width * pairs + separate
