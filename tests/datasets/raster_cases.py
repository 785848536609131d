"""Large images with labels, made small: what has to be known of windows is known of these too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import shapely
import tifffile
from numpy.typing import NDArray

HEIGHT, WIDTH = 150, 210
CLASSES = ("ground", "water", "roof")


def raster(seed: int) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Return (H, W, 4) values and (H, W) classes, which they show; a third has no label."""
    generator = np.random.default_rng(seed)
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[20:60, 30:80] = 1
    label[100:106, 120:126] = 2  # rare
    label[:, 140:] = 255
    values = generator.integers(1, 9000, (HEIGHT, WIDTH, 4)).astype(np.uint16)
    for number in (1, 2):
        values[label == number, number] += 40000
    return values, label


def write_bands(path: Path, values: NDArray[np.generic], *, nodata: int | None = None) -> None:
    """Write a tiled TIFF of so many bands, none of which is opacity."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = 1 if values.ndim == 2 else values.shape[2]
    tags = [] if nodata is None else [(42113, "s", 0, str(nodata), True)]
    others = {"extrasamples": [0] * (bands - 1), "planarconfig": "contig"} if bands > 1 else {}
    tifffile.imwrite(
        path, values, tile=(32, 48), compression="zlib", photometric="minisblack", extratags=tags, **others
    )


def make_index(data: Path, *, nodata: int | None = None) -> Path:
    """Write rasters with index rasters as labels; with `nodata`, their right parts are missing."""
    for seed, split in enumerate(("train", "val")):
        values, label = raster(seed)
        if nodata is not None:
            values[:, 100:] = nodata
        write_bands(data / split / "a.tif", values, nodata=nodata)
        write_bands(data / f"{split}_labels" / "a.tif", label)
    (data / "classes.txt").write_text("\n".join(CLASSES))
    return data


def make_polygons(data: Path) -> Path:
    """Write the same with a polygon for each class but the first."""
    for seed, split in enumerate(("train", "val")):
        values, _ = raster(seed)
        write_bands(data / split / "a.tif", values)
        boxes = {"water": shapely.box(30, 20, 80, 60), "roof": shapely.box(120, 100, 126, 106)}
        features = [
            {"type": "Feature", "geometry": shapely.geometry.mapping(box), "properties": {"class": name}}
            for name, box in boxes.items()
        ]
        (data / split / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return data
