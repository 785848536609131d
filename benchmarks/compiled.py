"""What `torch.compile` and bfloat16 gain: times beside the plain model, and the compilations that many sizes need.

python benchmarks/compiled.py [--model vision_longformer_small] [--size 448] [--repeats 7] [--sizes 20]

Sizes are drawn between half and one and a half times `--size`, not square, most of them no multiple of the stride. How
many graphs they need does not depend on what graphs are turned into, so they are only counted, not turned into code.
"""

from __future__ import annotations

import argparse
import functools
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import vision_longformer
from vision_longformer.benchmarking.machine import machine_line
from vision_longformer.benchmarking.timing import interleaved, markdown_table, ratios, spread


def compile_for_any_size(model: nn.Module, backend: str = "inductor") -> Callable[[Tensor], Tensor]:
    """Compile a model in one graph, whose height and width are unknown."""
    compiled: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=True, fullgraph=True, backend=backend)
    return compiled


def count_compilations(model: nn.Module, sizes: list[tuple[int, int]]) -> tuple[int, float]:
    """Return how many graphs images of these sizes need, and the largest error over the largest logit."""
    torch.compiler.reset()
    counters.clear()
    compiled, worst = compile_for_any_size(model, "eager"), 0.0
    for height, width in sizes:
        images = torch.randn(1, 3, height, width)
        expected = model(images)
        worst = max(worst, float((compiled(images) - expected).abs().max() / expected.abs().max()))
    return counters["stats"]["unique_graphs"], worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vision_longformer_small")
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--sizes", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    print(machine_line())
    model = vision_longformer.create_model(arguments.model).eval()
    draw = random.Random(0)
    sides = (arguments.size // 2, arguments.size * 3 // 2)
    sizes = [(draw.randint(*sides), draw.randint(*sides)) for _ in range(arguments.sizes)]
    with torch.inference_mode():
        graphs, error = count_compilations(model, sizes)
        print(f"{graphs} compilation(s) over {len(sizes)} sizes; largest relative difference of logits {error:.1e}")
        images = torch.randn(1, 3, arguments.size, arguments.size)
        half = vision_longformer.create_model(arguments.model).eval().bfloat16()
        compiled, start = compile_for_any_size(model), time.perf_counter()
        error = float((compiled(images) - model(images)).abs().max() / model(images).abs().max())
        print(f"compiled in {time.perf_counter() - start:.0f} s; largest relative difference of logits {error:.1e}")
        runs: dict[str, Callable[[], Any]] = {
            "float32": functools.partial(model, images),
            "float32, compiled": functools.partial(compiled, images),
            "bfloat16": functools.partial(half, images.bfloat16()),
        }
        seconds = interleaved(runs, repeats=arguments.repeats)
    rows = [
        [name, f"{1000 * statistics.median(own):.0f}", spread(ratios(own, seconds["float32"]))]
        for name, own in seconds.items()
    ]
    print(markdown_table(["", "median ms", "time over float32, turn by turn"], rows))


if __name__ == "__main__":
    main()
