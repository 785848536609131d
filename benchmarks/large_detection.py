"""Objects in an image of 5312×2988 pixels within 4 GB: peak memory against the forecast, each in a fresh process.

python benchmarks/large_detection.py [--models retinanet mask_rcnn] [--tiles 0 1024] [--width 64]

A tile of 0 lets memory decide. Weights are random: what counts is what a pass takes, not what it finds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch

from vision_longformer.benchmarking.timing import markdown_table
from vision_longformer.detection import build_mask_rcnn, build_retinanet
from vision_longformer.detection.tiled import find_objects
from vision_longformer.memory.dense import forecast_dense_memory
from vision_longformer.tiling.choosing import Tiling
from vision_longformer.utils.system_memory import peak_memory, reset_peak, resident_memory

SIZE = (2988, 5312)
LIMIT = 4 * 10**9
IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def measure(name: str, *, tile: int, width: int) -> dict[str, Any]:
    """Find objects once, in this process, and return what it took."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    build: Any = {"retinanet": build_retinanet, "mask_rcnn": build_mask_rcnn}[name]
    model = build("vision_longformer_nano", num_classes=3, pyramid_width=width, head_width=width).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    find_objects(model, pixels[:256, :256], tiling=Tiling(model, tile=256), **IMAGENET)
    tiling = Tiling(model, tile=tile or None, memory=int(0.6 * LIMIT))
    tiles = tiling.cut(SIZE)
    reset_peak()
    before, start = resident_memory() or 0, time.perf_counter()
    found = find_objects(model, pixels, tiling=tiling, **IMAGENET)
    seconds = time.perf_counter() - start
    peak = peak_memory() or 0
    return {
        "tiles": len(tiles),
        "side": "×".join(map(str, tiles[0].size)),
        "forecast": forecast_dense_memory(model, tiles[0].size),
        "pass": peak - before,
        "peak": peak,
        "seconds": seconds,
        "objects": len(found.boxes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["retinanet", "mask_rcnn"], choices=["retinanet", "mask_rcnn"])
    parser.add_argument("--tiles", nargs="+", type=int, default=[0, 1024], help="sides; 0 lets memory decide")
    parser.add_argument("--width", type=int, default=64, help="channels of the pyramid and the heads")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(measure(arguments.models[0], tile=arguments.tiles[0], width=arguments.width)))
        return
    rows, within = [], True
    for name in arguments.models:
        for tile in arguments.tiles:
            command = [sys.executable, __file__, "--alone", "--models", name, "--tiles", str(tile)]
            command += ["--width", str(arguments.width)]
            took = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            gigabytes = [f"{took[key] / 1e9:.2f}" for key in ("forecast", "pass", "peak")]
            rows.append([name, str(took["tiles"]), took["side"], *gigabytes, f"{took['seconds']:.0f}"])
            within &= took["peak"] <= LIMIT
    print(
        markdown_table(["model", "tiles", "side", "forecast GB", "above loaded GB", "process peak GB", "seconds"], rows)
    )
    if not within:
        sys.exit(f"the process took more than {LIMIT / 1e9:.0f} GB")


if __name__ == "__main__":
    main()
