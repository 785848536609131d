"""Classes of pixels in whole images and in tiles: what a segmentation model makes of images larger than its crops.

python benchmarks/semantic_tiles.py --data nuclei [--split val] [--tile 128] runs/nano runs/resnet18

The intersection over union of class 1, over all pixels of the split.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from vision_longformer.benchmarking.timing import markdown_table
from vision_longformer.datasets.dense_loaders import read_label
from vision_longformer.images import MAX_PIXELS
from vision_longformer.segmentation.tiled import label_pixels
from vision_longformer.tiling.choosing import Tiling
from vision_longformer.training.weight_files import load_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--tile", type=int, default=128, help="side in pixels; tiles share a quarter of it")
    arguments = parser.parse_args()
    rows = []
    for run in arguments.runs:
        rows.append([run.name, *(f"{iou(run, arguments, tile=tile):.3f}" for tile in (None, arguments.tile))])
    print(markdown_table(["run", "whole", f"in tiles of {arguments.tile}"], rows))


def iou(run: Path, arguments: argparse.Namespace, *, tile: int | None) -> float:
    """Return the intersection over union of class 1."""
    trained = load_weights(run / "best.safetensors")
    model: Any = trained.model.eval()
    split: Any = trained.read(arguments.data, arguments.split)
    colours: Any = {"mean": trained.preprocessing["mean"], "std": trained.preprocessing["std"]}
    both = either = 0
    for image in range(len(split)):
        pixels = np.asarray(split.read(image).convert("RGB"))
        tiling = Tiling(model, tile=tile or max(pixels.shape[:2]))
        found = label_pixels(model, pixels, tiling=tiling, **colours) == 1
        truth = read_label(split, image, max_pixels=MAX_PIXELS) == 1
        both, either = both + int((found & truth).sum()), either + int((found | truth).sum())
    return both / either


if __name__ == "__main__":
    main()
