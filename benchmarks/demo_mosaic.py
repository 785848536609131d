"""The mosaic of `vil demo`: micrographs of cell nuclei that no model of ours was trained on, side by side.

python benchmarks/demo_mosaic.py NUCLEI OUTPUT.jpg [--columns 6] [--rows 6]

NUCLEI has val.json, COCO's annotations, and its images in val/. Of each image with enough nuclei it takes the upper
left 256×256 pixels, of as many as there is room for, in an order drawn from a seed, and prints how many nuclei are
annotated there.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 256
FEWEST = 12  # nuclei of a micrograph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nuclei", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    values = json.loads((options.nuclei / "val.json").read_text(encoding="utf-8"))
    counts = Counter(nucleus["image_id"] for nucleus in values["annotations"] if _inside(nucleus["bbox"]))
    fitting = [image for image in values["images"] if counts[image["id"]] >= FEWEST]
    order = np.random.default_rng(options.seed).permutation(len(fitting))[: options.columns * options.rows]
    mosaic = Image.new("RGB", (options.columns * SIDE, options.rows * SIDE))
    for place, number in enumerate(order.tolist()):
        row, column = divmod(place, options.columns)
        with Image.open(options.nuclei / "val" / fitting[number]["file_name"]) as image:
            mosaic.paste(image.convert("RGB").crop((0, 0, SIDE, SIDE)), (column * SIDE, row * SIDE))
    mosaic.save(options.output, quality=92, subsampling=0)
    count = sum(counts[fitting[number]["id"]] for number in order.tolist())
    print(f"{options.output}: {len(order)} micrographs, {count} nuclei, {options.output.stat().st_size / 1e6:.2f} MB")


def _inside(box: list[float]) -> bool:
    """Return whether the middle of a nucleus, (left, top, width, height), is in the part that is shown."""
    left, top, width, height = box
    return left + width / 2 < SIDE and top + height / 2 < SIDE


if __name__ == "__main__":
    main()
