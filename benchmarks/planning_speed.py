"""What planning an image takes beside encoding it, in CPU seconds: the first plan of a process, and those that follow.

python benchmarks/planning_speed.py [--model vision_longformer_tiny] [--repeats 20]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import vision_longformer
from vision_longformer.benchmarking.machine import machine_line
from vision_longformer.benchmarking.timing import markdown_table
from vision_longformer.features.encoder import Encoder
from vision_longformer.memory.plans import plan

SIZES = ((375, 500), (1000, 1000), (3000, 4000))


def fastest(run: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Return the CPU seconds of the first turn, and of the fastest."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return seconds[0], min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vision_longformer_tiny")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine_line())
    model: Any = vision_longformer.create_model(arguments.model)
    encoder = Encoder(model, stages=[4])
    rows = []
    for height, width in SIZES:
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        first, planned = fastest(
            lambda size=(height, width): plan(encoder.model, *size, memory=10**12, outputs=[4]),  # type: ignore[misc]
            arguments.repeats,
        )
        _, encoded = fastest(lambda image=image: encoder.encode(image), 3 if height < 2000 else 1)  # type: ignore[misc]
        milliseconds = [f"{1000 * seconds:.1f}" for seconds in (first, planned, encoded)]
        rows.append([f"{height}×{width}", *milliseconds, f"{planned / encoded:.2%}"])
    print(markdown_table(["size", "first plan ms", "plan ms", "encoding ms", "share"], rows))


if __name__ == "__main__":
    main()
