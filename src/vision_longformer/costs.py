"""What a model costs, counted as the paper counts it.

Multiply-adds cover the patch convolutions, linear layers, attention products and classifier. As in the published
figures, every token is taken to see all nine chunks, and global tokens are left out of the linear layers;
`needed_multiply_adds` alone counts the chunks that exist.

N tokens of the map, C channels, G global tokens, w window, k and m features, n tokens of a reduced map
"""

from __future__ import annotations

from collections.abc import Callable

from vision_longformer.config import (
    Full,
    GlobalOnly,
    Linformer,
    ModelConfig,
    Performer,
    SpatialReduction,
    StageConfig,
    Windowed,
)


def multiply_adds(config: ModelConfig, size: tuple[int, int]) -> int:
    """Return the multiply-adds of one image of (height, width) `size` in pixels (paper, table 2 and appendix)."""
    return _multiply_adds(config, size, attention_multiply_adds)


def needed_multiply_adds(config: ModelConfig, size: tuple[int, int]) -> int:
    """Return the multiply-adds that one image needs: a token sees the neighbours that exist, fewer at the edges."""
    return _multiply_adds(config, size, needed_attention_multiply_adds)


def _multiply_adds(
    config: ModelConfig, size: tuple[int, int], of_attention: Callable[[StageConfig, tuple[int, int]], int]
) -> int:
    total, in_chans, grid = 0, config.in_chans, size
    for stage in config.stages:
        grid = (-(-grid[0] // stage.patch_size), -(-grid[1] // stage.patch_size))
        tokens = grid[0] * grid[1]
        total += tokens * stage.width * in_chans * stage.patch_size**2
        total += stage.depth * (linear_multiply_adds(stage, grid) + of_attention(stage, grid))
        in_chans = stage.width
    return total + in_chans * config.num_classes


def linear_multiply_adds(stage: StageConfig, grid: tuple[int, int]) -> int:
    """Return those of one block's linear layers and convolutions, for a map of `grid` (height, width) tokens."""
    tokens, square = grid[0] * grid[1], stage.width**2
    match stage.attention:
        case SpatialReduction(ratio=ratio):  # queries and output; the convolution; keys and values; the MLP
            reduced = _reduced_tokens(grid, ratio)
            return (2 * tokens + ratio**2 * reduced + 2 * reduced + 8 * tokens) * square
        case Windowed(shared_global_projections=False) | GlobalOnly(shared_global_projections=False):
            return (12 + (2 if stage.num_global_tokens else 0)) * tokens * square
        case _:  # four layers of attention and, each four times as large, two of the MLP
            return 12 * tokens * square


def attention_multiply_adds(stage: StageConfig, grid: tuple[int, int]) -> int:
    """Return those of one layer's products of queries, keys and values, for a map of `grid` (height, width) tokens."""
    tokens, num_global, width = grid[0] * grid[1], stage.num_global_tokens, stage.width
    match stage.attention:
        case Full():  # scores, then weighted sums
            return 2 * width * tokens**2
        case Windowed(window_size=window):
            return 2 * width * (tokens * (9 * window**2 + num_global) + num_global * tokens)
        case GlobalOnly():
            return 2 * width * (tokens * num_global + num_global * tokens)
        case Linformer(num_features=features):  # projected keys and values, then scores and weighted sums
            return 2 * width * (tokens * features + tokens * features)
        case SpatialReduction(ratio=ratio):
            return 2 * width * tokens * (_reduced_tokens(grid, ratio) + num_global)
        case Performer(num_features=features):  # φ(q), φ(k), φ(k)ᵀv, and what queries read from it
            return 4 * width * tokens * features


def needed_attention_multiply_adds(stage: StageConfig, grid: tuple[int, int]) -> int:
    """Return those of `attention_multiply_adds` that a map of `grid` (height, width) tokens needs.

    It differs for windowed attention, where only the keys that a token sees count.
    """
    match stage.attention:
        case Windowed() as attention:
            height, width = grid
            pairs = pairs_along_axis(height, attention) * pairs_along_axis(width, attention)
            return 2 * stage.width * (pairs + 2 * stage.num_global_tokens * height * width)
        case _:
            return attention_multiply_adds(stage, grid)


def pairs_along_axis(length: int, attention: Windowed) -> int:
    """Return the (query, key) pairs of positions along an axis of `length` tokens that see each other in evaluation.

    All pairs of a map are the product of those of its two axes.
    """
    window = attention.window_size
    if attention.shape == "exact" and attention.neighbours != "own":
        return sum(min(query + window, length - 1) - max(query - window, 0) + 1 for query in range(length))
    chunks = [min(window, length - start) for start in range(0, length, window)]
    if attention.neighbours == "own":
        return sum(chunk**2 for chunk in chunks)
    wraps = attention.shape == "cyclic" and len(chunks) >= 3
    padded = [chunks[-1], *chunks, chunks[0]] if wraps else [0, *chunks, 0]
    return sum(chunk * sum(padded[number : number + 3]) for number, chunk in enumerate(chunks))


def _reduced_tokens(grid: tuple[int, int], ratio: int) -> int:
    return -(-grid[0] // ratio) * -(-grid[1] // ratio)
