"""Time of the encoder beside timm's Swin-T at the same sizes: one process, interleaved, inference, batch 1, float32.

python benchmarks/speed.py [--sizes 224 448 896] [--repeats 7] [--backend sdpa]
"""

from __future__ import annotations

import argparse
import functools
import statistics

import timm
import torch

import vision_longformer
from vision_longformer.benchmarking.machine import machine_line
from vision_longformer.benchmarking.timing import interleaved, markdown_table, ratios, spread

PEER = "swin_tiny_patch4_window7_224"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 448, 896])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--models", nargs="+", default=["vision_longformer_small", "vision_longformer_tiny"])
    parser.add_argument("--backend", default="auto", choices=["auto", "fused", "sdpa"])
    arguments = parser.parse_args()
    vision_longformer.set_attention_backend(arguments.backend)
    torch.set_num_threads(2)
    print(machine_line())
    rows = []
    for size in arguments.sizes:
        models = {name: vision_longformer.create_model(name).eval() for name in arguments.models}
        models[PEER] = timm.create_model(PEER, img_size=size).eval()
        images = torch.randn(1, 3, size, size)
        with torch.inference_mode():
            runs = {name: functools.partial(model, images) for name, model in models.items()}
            seconds = interleaved(runs, repeats=arguments.repeats)
        for name, own in seconds.items():
            over = ratios(own, seconds[PEER])
            rows.append([str(size), name, f"{1000 * statistics.median(own):.0f}", spread(over)])
    print(markdown_table(["side", "model", "median ms", f"time over {PEER}, turn by turn"], rows))


if __name__ == "__main__":
    main()
