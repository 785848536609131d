"""A georeferenced raster, from training on windows of it to a map that lies on its input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio
import rasterio.features

from datasets.raster_cases import CLASSES, HEIGHT, WIDTH, raster
from training.cases import run
from training.test_windows import windows_recipe
from vision_longformer.images.find import find_images
from vision_longformer.prediction.predictor import Predictor
from vision_longformer.prediction.run import PredictionRun
from vision_longformer.training.weight_files import load_weights

PLACE = rasterio.Affine(10, 0, 499980, 0, -10, 5300040)


def write(data: Path) -> Path:
    """Write scenes of four bands, uint16, whose right part has no data, and their labels."""
    for seed, split in enumerate(("train", "val")):
        values, label = raster(seed)
        values[:, 140:] = 0
        about = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "crs": "EPSG:32633", "transform": PLACE}
        for folder, bands, missing in ((split, values, 0), (f"{split}_labels", label[..., None], 255)):
            (data / folder).mkdir(parents=True)
            kind = {"count": bands.shape[2], "dtype": bands.dtype, "nodata": missing}
            with rasterio.open(data / folder / "a.tif", "w", **about, **kind) as file:
                file.write(np.moveaxis(bands, 2, 0))
    (data / "classes.txt").write_text("\n".join(CLASSES))
    return data


def test_a_map_lies_where_its_scene_lies(tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    assert run(windows_recipe(), data, tmp_path / "run")[-1].kind == "finished"
    predictor = Predictor(load_weights(tmp_path / "run" / "best.safetensors"))
    sources = find_images([str(data / "val")])
    with PredictionRun(tmp_path / "out", predictor, root=data / "val", outputs=("labels", "geojson")) as made:
        (outcome,) = made.predict(sources, on_band=lambda source, share, pixels: None)
    assert outcome.status == "predicted"
    with rasterio.open(data / "val/a.tif") as scene, rasterio.open(tmp_path / "out/labels/a.tif.tif") as found:
        assert (found.crs, found.transform, found.bounds, found.shape) == (
            scene.crs, scene.transform, scene.bounds, scene.shape
        )  # fmt: skip
        assert (found.nodata, found.dtypes) == (255, ("uint8",))
        np.testing.assert_array_equal(found.dataset_mask(), scene.dataset_mask())
        assert set(np.unique(found.read(1)[:, :140])) <= {0, 1, 2}
        drawn = np.full(found.shape, 255, np.uint8)
        features = json.loads((tmp_path / "out/geojson/a.tif.geojson").read_text())["features"]
        for feature in features:
            value = feature["properties"]["class_number"]
            own = rasterio.features.rasterize([feature["geometry"]], found.shape, transform=found.transform)
            drawn[own > 0] = value
        np.testing.assert_array_equal(drawn, found.read(1))
