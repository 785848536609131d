"""Objects on the borders of bands: a large TIFF through a streamed Mask R-CNN, which must find each of them once.

python benchmarks/border_objects.py [--size 20000x20000] [--objects 200] [--memory 3GB] [--weights FILE]
    [--checkpoint FILE] [--epochs 8] [--folder DIR]

Sizes are height×width. A small detector is trained first, on pictures of such objects, unless there are --weights of an
earlier run; --checkpoint names a backbone to start from. Each object is drawn where a band of a level of the pyramid
ends. The image is looked at in a process of its own, whose peak memory, libraries and model included, is compared with
--memory. Fails if an object is missed or found twice, or the memory is exceeded.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.detection.streamed.mask_rcnn import LevelBands
from vision_longformer.images import open_reader
from vision_longformer.masks.rle import crop_to_rle, mask_to_box, rle_iou
from vision_longformer.prediction.dense import LookOptions, OnProgress, look
from vision_longformer.prediction.limits import limits_of
from vision_longformer.prediction.streaming import streaming_strategy
from vision_longformer.tiling.choosing import Tiling
from vision_longformer.training.weight_files import load_weights
from vision_longformer.utils.system_memory import parse_bytes, peak_memory, resident_memory

TILE = 256
LEAST, MOST = 9, 18  # pixels of a radius
APART = 4 * MOST  # of centres
FOUND, TOUCHED = 0.5, 0.05  # overlap (IoU) of what is an object, and of what is another view of it


@dataclass(frozen=True)
class Disc:
    """An ellipse of one colour: centre and radii in pixels, rows first."""

    centre: tuple[float, float]
    radii: tuple[float, float]
    colour: tuple[int, int, int]

    def crop(self) -> tuple[NDArray[np.bool_], int, int]:
        """Return its pixels, and the row and column of the first."""
        top, left = (int(np.floor(at - radius)) for at, radius in zip(self.centre, self.radii, strict=True))
        rows, columns = np.ogrid[: 2 * MOST + 3, : 2 * MOST + 3]
        across = (columns + 0.5 + left - self.centre[1]) / self.radii[1]
        return ((rows + 0.5 + top - self.centre[0]) / self.radii[0]) ** 2 + across**2 < 1, top, left


def random_disc(generator: np.random.Generator, centre: tuple[float, float]) -> Disc:
    radii = generator.uniform(LEAST, MOST, 2)
    red, green, blue = generator.integers([170, 60, 90], [240, 140, 200])
    return Disc(centre, (radii[0], radii[1]), (int(red), int(green), int(blue)))


def backgrounds() -> NDArray[np.uint8]:
    """Return tiles of noise, each around a dull colour of its own."""
    generator = np.random.default_rng(0)
    colour = generator.integers(30, 110, (16, 1, 1, 3))
    return (colour + generator.integers(0, 50, (16, TILE, TILE, 3))).astype(np.uint8)


def draw(pixels: NDArray[np.uint8], discs: list[Disc], top: int = 0, left: int = 0) -> None:
    """Draw discs into a part of an image, which begins at a row and a column of it."""
    height, width = pixels.shape[:2]
    for disc in discs:
        mask, row, column = disc.crop()
        rows, columns = np.nonzero(mask)
        rows, columns = rows + row - top, columns + column - left
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        shade = (rows[inside] * 7 + columns[inside] * 13) % 24  # a texture
        pixels[rows[inside], columns[inside]] = np.array(disc.colour) - shade[:, None]


def write_training_data(folder: Path) -> None:
    """Write pictures of one tile in COCO's layout."""
    grounds, generator = backgrounds(), np.random.default_rng(1)
    for split, count in (("train", 120), ("val", 16)):
        (folder / split).mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(count):
            # corners of four tiles meet in each picture, as they do in the large image
            cut = generator.integers(0, TILE, 2)
            kinds = generator.integers(0, 16, 4)
            ground = np.block([[[grounds[kinds[0]]], [grounds[kinds[1]]]], [[grounds[kinds[2]]], [grounds[kinds[3]]]]])
            pixels = np.ascontiguousarray(ground[cut[0] : cut[0] + TILE, cut[1] : cut[1] + TILE])
            cells = generator.permutation(9)[: generator.integers(0, 7)]
            places = [
                (cell // 3 * 85 + generator.uniform(20, 65), cell % 3 * 85 + generator.uniform(20, 65))
                for cell in cells
            ]
            discs = [random_disc(generator, place) for place in places]
            draw(pixels, discs)
            Image.fromarray(pixels).save(folder / split / f"{number}.png")
            images.append({"id": number + 1, "file_name": f"{number}.png", "width": TILE, "height": TILE})
            for disc in discs:
                rle, (x1, y1, x2, y2) = truth(disc, (TILE, TILE))
                about = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
                about |= {"id": len(annotations) + 1, "image_id": number + 1, "category_id": 1, "segmentation": rle}
                annotations.append(about)
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "disc"}]}
        (folder / f"{split}.json").write_text(json.dumps(content))


def truth(disc: Disc, size: tuple[int, int]) -> tuple[Any, tuple[int, int, int, int]]:
    """Return the run lengths and the box of a disc that lies in an image of (height, width) `size`."""
    mask, row, column = disc.crop()
    x1, y1, x2, y2 = mask_to_box(mask)
    return crop_to_rle(mask, corner=(row, column), size=size), (x1 + column, y1 + row, x2 + column, y2 + row)


def train(folder: Path, *, epochs: int, checkpoint: str | None) -> Path:
    """Train a detector on pictures of discs; return its weights."""
    write_training_data(folder / "data")
    command = [sys.executable, "-m", "vil", "train", "--recipe", "nuclei_mask_rcnn_nano"]
    command += ["--data", str(folder / "data"), "--output", str(folder / "run"), "--compute.threads", "1"]
    command += ["--schedule.epochs", str(epochs), "--logging.evaluate_every_epochs", str(epochs)]
    command += [] if checkpoint is None else ["--model.checkpoint", checkpoint]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return folder / "run" / "best.safetensors"


def on_borders(borders: list[int], size: tuple[int, int], count: int) -> list[Disc]:
    """Return discs, each of which a border, in rows of the image, goes through."""
    generator, discs = np.random.default_rng(2), list[Disc]()
    taken = np.zeros((0, 2))
    while len(discs) < count:
        border = borders[len(discs) % len(borders)]
        place = (border + generator.uniform(-6, 6), generator.uniform(2 * MOST, size[1] - 2 * MOST))
        if len(taken) == 0 or np.abs(taken - place).max(axis=1).min() > APART:
            discs.append(random_disc(generator, place))
            taken = np.vstack([taken, place])
    return discs


def borders_of(model: Any, size: tuple[int, int], band_bytes: int) -> list[int]:
    """Return the rows of an image where bands of a level end, those of the finest first."""
    bands, found = LevelBands(model, size, band_bytes=band_bytes, band_rows=None), dict[int, None]()
    for level, (stride, (height, _)) in enumerate(zip(model.backbone.strides, bands.sizes, strict=True)):
        rows = (row * stride for row in range(bands.rows(level), height, bands.rows(level)))
        found.update(dict.fromkeys(row for row in rows if 2 * MOST < row < size[0] - 2 * MOST))
    return list(found)


def write_image(path: Path, size: tuple[int, int], discs: list[Disc]) -> None:
    """Write a tiled TIFF, a row of tiles at a time."""
    grounds = backgrounds()

    def tiles() -> Iterator[NDArray[np.uint8]]:
        number = 0
        for top in range(0, size[0], TILE):
            near = [disc for disc in discs if top - 2 * MOST < disc.centre[0] < top + TILE + 2 * MOST]
            for left in range(0, size[1], TILE):
                pixels = grounds[number * 7 % 16].copy()
                draw(pixels, near, top, left)
                number += 1
                yield pixels

    options: dict[str, Any] = {"shape": (*size, 3), "dtype": np.uint8, "tile": (TILE, TILE), "photometric": "rgb"}
    tifffile.imwrite(path, tiles(), bigtiff=True, **options)


def compared(found: FoundObjects, discs: list[Disc], size: tuple[int, int]) -> dict[str, int]:
    """Return how many discs were found once, missed, found more often, and how much else was found."""
    boxes = np.asarray(found.boxes).reshape(-1, 4)
    elsewhere, counts = np.ones(len(boxes), bool), {"once": 0, "missed": 0, "more often": 0}
    for disc in discs:
        rle, (x1, y1, x2, y2) = truth(disc, size)
        near = np.flatnonzero((boxes[:, :2] < [x2, y2]).all(axis=1) & (boxes[:, 2:] > [x1, y1]).all(axis=1))
        elsewhere[near] = False
        assert found.masks is not None
        overlaps = rle_iou([found.masks[place] for place in near.tolist()], [rle])[:, 0] if len(near) else np.zeros(0)
        views = int((overlaps > TOUCHED).sum())
        good = bool((overlaps >= FOUND).any())
        counts["more often" if views > 1 else "once" if good else "missed"] += 1
    return counts | {"elsewhere": int(elsewhere.sum())}


def measure(weights: Path, path: Path, size: tuple[int, int], count: int, memory: int, folder: Path) -> dict[str, Any]:
    """Draw an image, in this process, look at it, and return what was found and what it took."""
    torch.set_num_threads(1)
    trained = load_weights(weights)
    model: Any = trained.model.eval()
    tiling = Tiling(model, memory=memory - (resident_memory() or 0), limits=limits_of(trained))
    with tiling.limits(size):
        strategy = streaming_strategy(model, size, tiling)
    if strategy is None:
        raise SystemExit(f"{size}: is not streamed within {memory:,} bytes")
    borders = borders_of(model, size, strategy.band_bytes)
    discs = on_borders(borders, size, count)
    write_image(path, size, discs)
    start = time.perf_counter()
    with closing(open_reader(path)) as reader:
        seen = look(
            trained,
            reader,
            tiling=tiling,
            device=torch.device("cpu"),
            options=LookOptions(min_score=0.5, work_folder=folder),
            progress=OnProgress(),
        )
    assert seen.streamed
    assert seen.objects is not None
    took = {"seconds": round(time.perf_counter() - start), "peak": peak_memory() or 0, "borders": len(borders)}
    return took | {"disk": strategy.disk, **compared(seen.objects, discs, size)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="20000x20000", help="height×width in pixels")
    parser.add_argument("--objects", type=int, default=200)
    parser.add_argument("--memory", default="3GB", help="bound of the process")
    parser.add_argument("--weights", help="of a detector that was trained before")
    parser.add_argument("--checkpoint", help="of a backbone to start from")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--folder", help="where everything goes; a temporary folder by default")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    memory = parse_bytes(arguments.memory)
    height, width = map(int, re.split("[x×]", arguments.size))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        if arguments.alone:
            path = folder / "image.tif"
            took = measure(Path(arguments.weights), path, (height, width), arguments.objects, memory, folder)
            print(json.dumps(took))
            return
        weights = arguments.weights or str(train(folder, epochs=arguments.epochs, checkpoint=arguments.checkpoint))
        command = [sys.executable, __file__, "--alone", "--weights", weights, "--folder", str(folder)]
        command += ["--size", arguments.size, "--objects", str(arguments.objects), "--memory", arguments.memory]
        took = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    print(json.dumps(took, indent=1))
    if took["once"] < arguments.objects or took["peak"] > memory:
        sys.exit("objects were missed or found more than once, or the memory was exceeded")


if __name__ == "__main__":
    main()
