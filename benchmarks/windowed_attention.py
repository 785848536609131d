"""Windowed attention alone: the fused kernel beside the scaled_dot_product_attention path, at each stage of models.

python benchmarks/windowed_attention.py [--size 896] [--models NAME ...] [--threads 2] [--repeats 9]

One process, interleaved, inference, batch 1, float32. The kernel, the other path and a large matrix product take turns;
a share of the peak is the operations that the map needs (neighbours that exist) over those of the product of the
same turn.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable
from typing import Any

import torch

import vision_longformer
from vision_longformer import StageConfig, VisionLongformer, Windowed
from vision_longformer.attention.backend import AttentionBackend
from vision_longformer.attention.gathered import gathered_windowed_attention
from vision_longformer.attention.geometry import ALL
from vision_longformer.benchmarking.machine import machine_line
from vision_longformer.benchmarking.timing import interleaved, markdown_table, spread
from vision_longformer.costs import pairs_along_axis

PRODUCT_SIDE = 1536


def operations(stage: StageConfig, attention: Windowed, side: int) -> int:
    """Return the operations of the map queries' attention: scores and weighted sums, two for a multiply-add."""
    pairs = pairs_along_axis(side, attention) ** 2 + side**2 * stage.num_global_tokens
    return 4 * stage.width * pairs


def measure(stage: StageConfig, window: int, side: int, *, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each turn of "fused", "sdpa" and "product"."""
    heads = stage.num_heads
    qkv = torch.randn(1, side, side, 3 * stage.width).unflatten(-1, (3, heads, -1))
    of_global = torch.randn(1, stage.num_global_tokens, 3 * stage.width).unflatten(-1, (3, heads, -1))
    table, global_bias = torch.randn((4 * window - 1) ** 2, heads), torch.randn(heads, stage.num_global_tokens)
    a, b = torch.randn(PRODUCT_SIDE, PRODUCT_SIDE), torch.randn(PRODUCT_SIDE, PRODUCT_SIDE)

    def attend(backend: AttentionBackend) -> None:
        vision_longformer.set_attention_backend(backend)
        gathered_windowed_attention(
            qkv[..., 0, :, :],
            qkv[..., 1:, :, :],
            of_global[..., 1:, :, :],
            table=table,
            global_bias=global_bias,
            valid=None,
            window=window,
            shape="chunk",
            offsets=ALL,
        )

    runs: dict[str, Callable[[], Any]] = {
        "fused": functools.partial(attend, "fused"),
        "sdpa": functools.partial(attend, "sdpa"),
        "product": lambda: a @ b,
    }
    with torch.inference_mode():
        return interleaved(runs, repeats=repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=896)
    parser.add_argument("--models", nargs="+", default=["vision_longformer_tiny", "vision_longformer_small"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(machine_line())
    rows = []
    for name in arguments.models:
        model = vision_longformer.create_model(name, device="meta")
        assert isinstance(model, VisionLongformer)
        config = model.config
        for number, (stage, stride) in enumerate(zip(config.stages, config.strides, strict=True), start=1):
            if not isinstance(stage.attention, Windowed):
                continue
            window, side = stage.attention.window_size, -(-arguments.size // stride)
            seconds = measure(stage, window, side, repeats=arguments.repeats)
            needed = operations(stage, stage.attention, side)
            shares = [
                needed / own / (2 * PRODUCT_SIDE**3 / product)
                for own, product in zip(seconds["fused"], seconds["product"], strict=True)
            ]
            ratios = [own / other for own, other in zip(seconds["fused"], seconds["sdpa"], strict=True)]
            shape = f"{side}×{side}, {stage.num_heads}×{stage.width // stage.num_heads}"
            milliseconds = f"{1000 * statistics.median(seconds['fused']):.1f}"
            rows.append([name, str(number), shape, milliseconds, spread(shares), spread(ratios)])
    print(markdown_table(["model", "stage", "map, heads", "median ms", "share of peak", "time over sdpa"], rows))


if __name__ == "__main__":
    main()
