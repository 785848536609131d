"""What two ways of staying in cache gain inside the blocks of a model, in inference.

python benchmarks/blocks.py gelu [--model vision_longformer_small] [--size 448] [--repeats 40]
python benchmarks/blocks.py chunks [--model vision_longformer_tiny] [--size 896] [--repeats 11]

gelu   GELU of an MLP in place, over new memory for its result
chunks normalising, transforming and adding so many tokens at a time, over doing each for the whole map
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import vision_longformer
from vision_longformer.attention import rowwise
from vision_longformer.attention.feed_forward import FeedForward
from vision_longformer.benchmarking.machine import machine_line
from vision_longformer.benchmarking.timing import interleaved, markdown_table, ratios, spread

WHOLE = 2**60  # tokens that no map has
CHUNKS = (256, 512, 2048, 4096)
MODELS = {"gelu": ("vision_longformer_small", 448, 40), "chunks": ("vision_longformer_tiny", 896, 11)}


class PlainGELU(nn.GELU):
    """An activation that an MLP does not know, so that it is not applied in place."""


def run_with_gelu(model: nn.Module, images: Tensor, activation: nn.Module) -> None:
    """Run a pass with this activation in every MLP."""
    for module in model.modules():
        if isinstance(module, FeedForward):
            module.act = activation
    model(images)


def run_with_chunks(model: nn.Module, images: Tensor, tokens: int) -> None:
    """Run a pass with chunks of so many tokens."""
    rowwise.CHUNK_TOKENS = tokens
    model(images)


def ways(case: str, model: nn.Module, images: Tensor) -> Mapping[str, Callable[[], Any]]:
    """Return what takes turns, the way that the others are beside first."""
    if case == "gelu":
        run = functools.partial(run_with_gelu, model, images)
        return {"new memory": functools.partial(run, PlainGELU()), "in place": functools.partial(run, nn.GELU())}
    sizes = {"whole map": WHOLE, **{f"{tokens} tokens": tokens for tokens in CHUNKS}}
    return {name: functools.partial(run_with_chunks, model, images, tokens) for name, tokens in sizes.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=list(MODELS))
    parser.add_argument("--model")
    parser.add_argument("--size", type=int)
    parser.add_argument("--repeats", type=int)
    arguments = parser.parse_args()
    name, size, repeats = MODELS[arguments.case]
    size = arguments.size or size
    torch.set_num_threads(2)
    print(machine_line())
    model = vision_longformer.create_model(arguments.model or name).eval()
    with torch.inference_mode():
        runs = ways(arguments.case, model, torch.randn(1, 3, size, size))
        seconds = interleaved(runs, repeats=arguments.repeats or repeats)
    first = next(iter(seconds))
    rows = [
        [
            way,
            f"{1000 * statistics.median(own):.0f}",
            spread(ratios(own, seconds[first])),
            f"{min(own) / min(seconds[first]):.2f}",
        ]
        for way, own in seconds.items()
    ]
    print(markdown_table(["", "median ms", f"time over {first}, turn by turn", "of the fastest turns"], rows))


if __name__ == "__main__":
    main()
