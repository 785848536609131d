"""Growth of time with the number of pixels: 16 times the pixels should take about 16 times as long.

python benchmarks/growth.py [--model vision_longformer_tiny] [--sizes 896 1792 3584] [--repeats 5]
"""

from __future__ import annotations

import argparse
import functools
import statistics

import torch

import vision_longformer
from vision_longformer.benchmarking.machine import machine_line
from vision_longformer.benchmarking.timing import interleaved, markdown_table, ratios, spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vision_longformer_tiny")
    parser.add_argument("--sizes", type=int, nargs="+", default=[896, 1792, 3584])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    print(machine_line())
    model = vision_longformer.create_model(arguments.model).eval()
    with torch.inference_mode():
        images = {size: torch.randn(1, 3, size, size) for size in arguments.sizes}
        runs = {str(size): functools.partial(model, image) for size, image in images.items()}
        seconds = interleaved(runs, repeats=arguments.repeats)
    first = str(arguments.sizes[0])
    rows = []
    for size in arguments.sizes:
        own = seconds[str(size)]
        over = ratios(own, seconds[first])
        pixels = (size / arguments.sizes[0]) ** 2
        rows.append([str(size), f"{pixels:.0f}", f"{1000 * statistics.median(own):.0f}", spread(over)])
    print(markdown_table(["side", f"pixels over {first}²", "median ms", f"time over {first}², turn by turn"], rows))


if __name__ == "__main__":
    main()
