"""A satellite's scene from training to a map: windows of it are learned, and what is predicted lies beside it.

python benchmarks/large_raster.py OUTPUT [--size 5000x7000] [--epochs 3] [--windows 32]

Writes a GeoTIFF of four bands, uint16, of a made-up scene with fields, water and a corner without data, and a label
image of its classes; trains a small model on windows (`vil train --dense.window`), predicts (`vil predict`) and checks
the map that comes out against its input, as rasterio reads both. Sizes are height×width. Fails if place, size or
missing pixels differ.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy.ndimage import zoom

CLASSES = ("soil", "crop", "water")
SPECTRA = np.array([[2200, 2600, 3000, 3300], [800, 1200, 900, 5200], [900, 800, 500, 200]])  # blue to infrared
NO_DATA, BLOCK = 0, 256
SIDE = 512  # of the scene that is measured on


def scene(height: int, width: int, *, seed: int) -> NDArray[np.uint8]:
    """Return the classes of pixels: blobs, and 255 in a corner where there is no data."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((3, height // 64 + 4, width // 64 + 4))
    smooth = np.stack([zoom(one, 8, order=1) for one in coarse])  # an eighth of the size
    classes: NDArray[np.uint8] = smooth.argmax(axis=0).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    classes = np.ascontiguousarray(classes[:height, :width])
    for row in range(height // 4):
        classes[row, : width // 4 - row * width // height] = 255
    return classes


def write(path: Path, classes: NDArray[np.uint8], *, seed: int) -> None:
    """Write a scene and, beside it, its label image."""
    generator = np.random.default_rng(seed)
    about: dict[str, Any] = {"driver": "GTiff", "height": classes.shape[0], "width": classes.shape[1], "tiled": True}
    about |= {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 499980, 0, -10, 5300040)}
    about |= {"blockxsize": BLOCK, "blockysize": BLOCK}
    labels = path.parent.parent / f"{path.parent.name}_labels" / path.name
    labels.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(labels, "w", count=1, dtype="uint8", nodata=255, **about) as file:
        file.write(classes, 1)
    with rasterio.open(path, "w", count=4, dtype="uint16", nodata=NO_DATA, **about) as file:
        for top in range(0, classes.shape[0], BLOCK):
            part = classes[top : top + BLOCK]
            values = SPECTRA[part.clip(max=2)] + generator.integers(-300, 300, (*part.shape, 4))
            values = np.where(part[..., None] == 255, NO_DATA, values.clip(1, 10000)).astype(np.uint16)
            window = Window(0, top, part.shape[1], len(part))
            file.write(np.moveaxis(values, 2, 0), window=window)


def vil(*arguments: object) -> None:
    command = [sys.executable, "-m", "vil", *map(str, arguments)]
    print("$ vil", " ".join(command[3:]), flush=True)
    subprocess.run(command, check=True)


def compare(image: Path, result: Path, labels: Path) -> None:
    """Print how input and result lie, and what the result says."""
    with rasterio.open(image) as one, rasterio.open(result) as other, rasterio.open(labels) as truth:
        for name in ("crs", "transform", "bounds", "shape"):
            print(f"{name}: {getattr(one, name)} and {getattr(other, name)}")
            if getattr(one, name) != getattr(other, name):
                sys.exit(f"{name} differs")
        kind = f"{other.dtypes[0]}, no data {other.nodata}, {other.count} band, overviews {other.overviews(1)}"
        print(f"of the result: {kind}")
        there, own, wanted = one.dataset_mask() > 0, other.read(1), truth.read(1)
        if not np.array_equal(there, other.dataset_mask() > 0):
            sys.exit("missing pixels differ")
        print(f"missing pixels, in both: {np.count_nonzero(~there):,} of {there.size:,}")
        print(f"pixels whose class is right: {np.mean(own[there] == wanted[there]):.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--size", default="5000x7000", help="height×width in pixels")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--windows", type=int, default=32, help="of an epoch")
    parser.add_argument("--memory", default="1GB", help="that predicting may take beside the model")
    arguments = parser.parse_args()
    height, width = map(int, re.split("[x×]", arguments.size))
    data, run, found = (arguments.output / name for name in ("data", "run", "found"))
    write(data / "train" / "scene.tif", scene(height, width, seed=0), seed=0)
    write(data / "val" / "scene.tif", scene(SIDE, SIDE, seed=1), seed=1)
    (data / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    reading = ("--channels", 0, 1, 2, 3, "--value-range", 0, 10000)
    head = "{pyramid_width: 32, head_width: 32, norm_groups: 8}"
    options: dict[str, Any] = {"dense.window": 128, "dense.windows_per_epoch": arguments.windows, "dense.head": head}
    options |= {"model.name": "vision_longformer_nano", "compute.batch_size": 8, "compute.threads": 1}
    options |= {"compute.workers": 0, "schedule.epochs": arguments.epochs, "schedule.warmup_epochs": 0.5}
    options |= {"optimizer.learning_rate": 1e-3, "augmentation.vertical_flip": 0.5}
    typed = [text for name, value in options.items() for text in (f"--{name}", value)]
    vil("train", "--task", "semantic_segmentation", "--data", data, "--output", run, *reading, *typed)
    image = data / "train" / "scene.tif"
    vil(
        "predict",
        run / "best.safetensors",
        image,
        "--output",
        found,
        "--outputs",
        "geotiff",
        "csv",
        "--memory",
        arguments.memory,
    )
    print((found / "classes.csv").read_text())
    compare(image, found / "labels" / "scene.tif.tif", data / "train_labels" / "scene.tif")


if __name__ == "__main__":
    main()
