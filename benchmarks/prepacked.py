"""What prepacked weights gain: products of linear layers with weights that oneDNN has reordered, beside PyTorch's own.

python benchmarks/prepacked.py [--model vision_longformer_small] [--size 896] [--threads 2] [--repeats 15]

For each stage, the first product of an MLP over all tokens of the map. What reordering takes is not counted.
"""

from __future__ import annotations

import argparse
import functools
import statistics

import torch
from torch.nn import functional as F

import vision_longformer
from vision_longformer import VisionLongformer
from vision_longformer.benchmarking.machine import machine_line
from vision_longformer.benchmarking.timing import interleaved, markdown_table, ratios, spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vision_longformer_small")
    parser.add_argument("--size", type=int, default=896)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(machine_line())
    model = vision_longformer.create_model(arguments.model, device="meta")
    assert isinstance(model, VisionLongformer)
    rows = []
    for number, (stage, stride) in enumerate(zip(model.config.stages, model.config.strides, strict=True), start=1):
        tokens, width = (-(-arguments.size // stride)) ** 2, stage.width
        x, weight, bias = torch.randn(tokens, width), torch.randn(4 * width, width), torch.randn(4 * width)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, tokens)
        runs = {
            "plain": functools.partial(F.linear, x, weight, bias),
            "prepacked": functools.partial(torch.ops.mkldnn._linear_pointwise, x, packed, bias, "none", [], ""),
        }
        with torch.inference_mode():
            assert torch.allclose(runs["plain"](), runs["prepacked"](), rtol=1e-4, atol=1e-2)
            seconds = interleaved(runs, repeats=arguments.repeats)
        milliseconds = [f"{1000 * statistics.median(own):.1f}" for own in seconds.values()]
        over = ratios(seconds["prepacked"], seconds["plain"])
        fastest = f"{min(seconds['prepacked']) / min(seconds['plain']):.2f}"
        rows.append([str(number), f"{tokens}×{width} to {4 * width}", *milliseconds, spread(over), fastest])
    header = ["stage", "tokens, channels", "ms, plain", "ms, prepacked", "time over, turn by turn", "of the fastest"]
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
