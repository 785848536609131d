"""Time of a training step beside timm's Swin-T, and of random shift beside all neighbours; one process, interleaved.

A step is forward, backward and an AdamW update, in float32, without activation checkpointing.

python benchmarks/training_step.py [--size 448] [--batch 2] [--repeats 7] [--threads 2] [--backend sdpa]
"""

from __future__ import annotations

import argparse
import functools
import statistics
from typing import cast

import timm
import torch
from torch import Tensor, nn

import vision_longformer
from vision_longformer import VisionLongformer
from vision_longformer.benchmarking.machine import machine_line
from vision_longformer.benchmarking.timing import interleaved, markdown_table, ratios, spread

PEER = "swin_tiny_patch4_window7_224"


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
    optimizer.zero_grad()


def compare(models: dict[str, nn.Module], base: str, *, size: int, batch: int, repeats: int) -> list[list[str]]:
    images, labels = torch.randn(batch, 3, size, size), torch.zeros(batch, dtype=torch.long)
    runs = {
        name: functools.partial(step, model.train(), torch.optim.AdamW(model.parameters()), images, labels)
        for name, model in models.items()
    }
    seconds = interleaved(runs, repeats=repeats)
    rows = []
    for name, own in seconds.items():
        over = ratios(own, seconds[base])
        rows.append([str(size), name, f"{1000 * statistics.median(own):.0f}", f"{base}: {spread(over)}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--backend", default="sdpa", choices=["auto", "sdpa"], help="of random shift and what it is beside"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(machine_line())
    settings = {"size": arguments.size, "batch": arguments.batch, "repeats": arguments.repeats}
    small = vision_longformer.create_model("vision_longformer_small")
    swin = cast(nn.Module, timm.create_model(PEER, img_size=arguments.size))
    rows = compare({"vision_longformer_small": small, PEER: swin}, PEER, **settings)
    # What random shift was made for is the path whose time grows with the keys that are gathered.
    vision_longformer.set_attention_backend(arguments.backend)
    tiny = {name: vision_longformer.create_model("vision_longformer_tiny") for name in ("all", "random")}
    cast(VisionLongformer, tiny["random"]).set_neighbours("random")
    named = {f"vision_longformer_tiny, {name} neighbours": model for name, model in tiny.items()}
    rows += compare(named, "vision_longformer_tiny, random neighbours", **settings)
    print(markdown_table(["side", "model", "median ms", "time over, turn by turn"], rows))


if __name__ == "__main__":
    main()
