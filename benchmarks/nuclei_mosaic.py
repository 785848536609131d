"""A mosaic of micrographs in tiles and streamed: how many nuclei each way finds, and which are split.

python benchmarks/nuclei_mosaic.py WEIGHTS --data nuclei --output DIR [--size 6000x8000] [--tile 1024] [--memory 600MB]

Sizes are height×width. The mosaic is made of the validation images of COCO's layout, mirrored and turned. As what
is streamed is what a pass over the whole mosaic finds, it is the measure: one of its objects is split where two or
more of the other way lie in it by half, and none of them is it (IoU 0.5). Writes the mosaic, GeoJSON of both ways, and
pictures of the parts that differ most.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from vision_longformer.benchmarking.timing import markdown_table
from vision_longformer.images import read_rgb
from vision_longformer.prediction.predictor import PredictOptions, Predictor
from vision_longformer.prediction.results import ObjectsResult
from vision_longformer.training.weight_files import load_weights
from vision_longformer.utils.system_memory import parse_bytes

SIDE = 256  # pixels of a cell of the mosaic
CROP = 700  # pixels of a side of a picture
PICTURES = 3


def mosaic(data: Path, height: int, width: int) -> NDArray[np.uint8]:
    """Return cells of validation images, each turned by chance."""
    generator = np.random.default_rng(0)
    images = json.loads((data / "val.json").read_text())["images"]
    pixels = [np.asarray(read_rgb(data / "val" / image["file_name"])) for image in images]
    whole = np.zeros((-(-height // SIDE) * SIDE, -(-width // SIDE) * SIDE, 3), np.uint8)
    for top in range(0, len(whole), SIDE):
        for left in range(0, whole.shape[1], SIDE):
            own = pixels[generator.integers(len(pixels))]
            y, x = (generator.integers(0, max(1, side - SIDE + 1)) for side in own.shape[:2])
            cell = np.rot90(own[y : y + SIDE, x : x + SIDE], int(generator.integers(4)))
            cell = cell[:, ::-1] if generator.random() < 0.5 else cell
            whole[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return whole[:height, :width]


def look(weights: Path, image: Path, **options: Any) -> tuple[ObjectsResult, float]:
    start = time.perf_counter()
    result = Predictor(load_weights(weights), PredictOptions(**options))(image)
    assert isinstance(result, ObjectsResult)
    return result, time.perf_counter() - start


def compared(measure: ObjectsResult, other: ObjectsResult) -> dict[str, list[int]]:
    """Return which objects of the one are alike in the other, split, or not there."""
    labels = other.labels
    areas = np.bincount(labels.ravel(), minlength=len(other) + 1)
    found: dict[str, list[int]] = {"alike": [], "split": [], "not there": []}
    for number, (mask, (top, left)) in enumerate(measure.crops):
        inside = labels[top : top + mask.shape[0], left : left + mask.shape[1]][mask]
        shared = np.bincount(inside, minlength=len(areas))
        shared[0] = 0
        places = np.flatnonzero(shared)
        unions = areas[places] + mask.sum() - shared[places]
        whole = bool((shared[places] / unions >= 0.5).any())
        parts = int((shared[places] >= areas[places] / 2).sum())
        found["alike" if whole else "split" if parts > 1 else "not there"].append(number)
    return found


def write_crops(folder: Path, pixels: NDArray[np.uint8], ways: dict[str, ObjectsResult], centres: list[Any]) -> None:
    """Write parts of the mosaic with what each way finds side by side."""
    whole = Image.fromarray(pixels)
    drawn = {name: result.plot(whole) for name, result in ways.items()}
    for number, (x, y) in enumerate(centres):
        left, top = (int(np.clip(at - CROP / 2, 0, side - CROP)) for at, side in zip((x, y), whole.size, strict=True))
        pair = Image.new("RGB", (2 * CROP + 10, CROP), "white")
        for place, picture in enumerate(drawn.values()):
            pair.paste(picture.crop((left, top, left + CROP, top + CROP)), (place * (CROP + 10), 0))
        pair.save(folder / f"part{number}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--size", default="6000x8000", help="height×width in pixels")
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--memory", default="600MB", help="of the streamed pass, beside the model")
    parser.add_argument("--min-score", type=float, help="by default as training chose")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    height, width = map(int, re.split("[x×]", arguments.size))
    pixels, image = mosaic(arguments.data, height, width), arguments.output / "mosaic.tif"
    tifffile.imwrite(image, pixels, tile=(SIDE, SIDE), photometric="rgb", compression="zlib")
    about: dict[str, Any] = {"min_score": arguments.min_score, "detections": 100_000}
    streamed, first = look(arguments.weights, image, memory=parse_bytes(arguments.memory), **about)
    tiled, second = look(arguments.weights, image, tile=arguments.tile, **about)
    rows = []
    for name, result, seconds in (("streamed", streamed, first), ("tiles", tiled, second)):
        result.save(arguments.output / f"{name}.geojson")
        rows.append([name, str(result.streamed), str(result.tiles), f"{len(result):,}", f"{seconds:.0f}"])
    print(markdown_table(["way", "streamed", "tiles", "objects", "seconds"], rows))
    ways = {"streamed": streamed, "tiles": tiled}
    for name, (measure, other) in {"streamed": (streamed, tiled), "tiles": (tiled, streamed)}.items():
        found = compared(measure, other)
        print(
            f"of the {len(measure):,} objects {name}:", ", ".join(f"{len(own):,} {what}" for what, own in found.items())
        )
        if name == "streamed":
            shown = [*found["split"], *found["not there"], *found["alike"]][:PICTURES]
            write_crops(arguments.output, pixels, ways, [measure.measures.centroids[number] for number in shown])


if __name__ == "__main__":
    main()
