"""Dense predictions of a large TIFF, streamed: peak memory against the bound and the forecast, each in a fresh process.

python benchmarks/large_streamed.py [--models semantic mask_rcnn retinanet] [--sizes 20000x20000] [--memory 2GB]
    [--bands 8MB] [--width 64] [--folder DIR]

Sizes are height×width. The bound is of the process, libraries and model included. With --bands, maps go to the disk and
bands of a block hold so much, whatever the bound allows: of sizes of one width, peaks must then not grow with height.
Weights are random: what counts is what a pass takes, not what it finds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

from vision_longformer.benchmarking.timing import markdown_table
from vision_longformer.detection import build_mask_rcnn, build_retinanet
from vision_longformer.detection.streamed.find_objects import find_objects_streamed
from vision_longformer.fpn.streamed.memory import Streaming, choose_streaming, forecast_streamed
from vision_longformer.images import ArrayReader, Reader, open_reader
from vision_longformer.prediction.measures import ImageFacts
from vision_longformer.prediction.results import SemanticResult
from vision_longformer.prediction.streaming import LEVEL_BYTES
from vision_longformer.segmentation import build_semantic_fpn
from vision_longformer.segmentation.streamed.label_pixels import label_pixels_streamed
from vision_longformer.utils.system_memory import parse_bytes, peak_memory, reset_peak, resident_memory

COLOURS: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
BUILD: dict[str, Any] = {"semantic": build_semantic_fpn, "mask_rcnn": build_mask_rcnn, "retinanet": build_retinanet}
TILE = 256


def write_image(path: Path, size: tuple[int, int]) -> None:
    """Write a tiled TIFF of blocks of colour with noise."""
    generator = np.random.default_rng(0)
    tiles = generator.integers(0, 256, (16, TILE, TILE, 3), dtype=np.uint8) // 4 + generator.integers(
        0, 192, (16, 1, 1, 3), dtype=np.uint8
    )
    count = -(-size[0] // TILE) * -(-size[1] // TILE)

    def pieces() -> Iterator[Any]:
        for number in range(count):
            yield tiles[number * 7 % 16]

    tifffile.imwrite(
        path, pieces(), shape=(*size, 3), dtype=np.uint8, tile=(TILE, TILE), photometric="rgb", bigtiff=True
    )


def measure(kind: str, path: Path, *, memory: int, bands: int | None, width: int, folder: Path) -> dict[str, Any]:
    """Look at an image once, in this process, and return what it took."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options = {"num_classes": 3, "pyramid_width": width, "head_width": width}
    model: Any = BUILD[kind]("vision_longformer_nano", **options).eval()
    _look(kind, model, ArrayReader(np.zeros((300, 300, 3), np.uint8)), Streaming(0, 2**20, True), folder)  # imports
    reset_peak()
    before, start = resident_memory() or 0, time.perf_counter()
    with contextlib.closing(open_reader(path)) as reader:
        size = reader.info.size
        of_levels = partial(LEVEL_BYTES[type(model)], model, size)
        if bands is not None:
            needs = forecast_streamed(model.backbone, size, of_levels, bands, spilled=True)
            strategy: Streaming | None = Streaming(needs.memory, bands, True, needs.disk)
        else:
            strategy = choose_streaming(model.backbone, size, of_levels, memory=memory - before)
        if strategy is None:
            raise SystemExit(f"{size}: does not fit into {memory:,} bytes")
        found = _look(kind, model, reader, strategy, folder)
    return {
        "spilled": strategy.spilled,
        "forecast": before + strategy.bytes,
        "disk": strategy.disk,
        "peak": peak_memory() or 0,
        "seconds": time.perf_counter() - start,
        "found": found,
    }


def _look(kind: str, model: Any, reader: Reader, strategy: Streaming, folder: Path) -> int:
    """Return how many objects, or classes, are found."""
    if kind != "semantic":
        return len(find_objects_streamed(model, reader, strategy, work_folder=folder, **COLOURS).boxes)
    labels, _ = label_pixels_streamed(model, reader, strategy, work_folder=folder, **COLOURS)
    facts, classes = ImageFacts("image", reader.info.size), ("a", "b", "c")
    result = SemanticResult(image=facts, class_names=classes, labels=labels.array(), label_file=labels)
    result.save(folder / "labels.zarr")
    return int((result.pixels > 0).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["semantic", "mask_rcnn"], choices=list(BUILD))
    parser.add_argument("--sizes", nargs="+", default=["20000x20000"], help="height×width in pixels")
    parser.add_argument("--memory", default="2GB", help="bound of the process")
    parser.add_argument("--bands", help="spill maps, and let bands of a block hold so much")
    parser.add_argument("--width", type=int, default=64, help="channels of the pyramid and the heads")
    parser.add_argument("--folder", help="where images and maps go; a temporary folder by default")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    memory, rows, within = parse_bytes(arguments.memory), [], True
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        if arguments.alone:
            path = Path(arguments.alone)
            bands = None if arguments.bands is None else parse_bytes(arguments.bands)
            about: dict[str, Any] = {"memory": memory, "bands": bands, "width": arguments.width, "folder": folder}
            print(json.dumps(measure(arguments.models[0], path, **about)))
            return
        for size in arguments.sizes:
            height, width = map(int, size.split("x"))
            path = folder / f"{size}.tif"
            write_image(path, (height, width))
            for kind in arguments.models:
                command = [sys.executable, __file__, "--alone", str(path), "--models", kind, "--memory", str(memory)]
                command += ["--width", str(arguments.width), "--folder", str(folder)]
                command += [] if arguments.bands is None else ["--bands", arguments.bands]
                took = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
                gigabytes = [f"{took[key] / 1e9:.2f}" for key in ("forecast", "peak", "disk")]
                rows.append(
                    [kind, size, str(took["spilled"]), *gigabytes, f"{took['seconds']:.0f}", str(took["found"])]
                )
                print(rows[-1], file=sys.stderr, flush=True)
                within &= took["peak"] <= memory
            path.unlink()
    header = ["model", "size", "spilled", "forecast GB", "peak GB", "disk GB", "seconds", "found"]
    print(markdown_table(header, rows))
    if not within:
        sys.exit(f"a process took more than {memory:,} bytes")


if __name__ == "__main__":
    main()
