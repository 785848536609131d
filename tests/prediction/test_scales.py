"""Slides that are read at another scale: what is found there is told in pixels of full resolution, and micrometres."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import rasterio.features
import shapely
import tifffile

from images.slide_cases import UM, slide_pixels, write_slide
from prediction.cases import random_classes, random_objects, trained
from vision_longformer.images.find import find_images
from vision_longformer.masks.rle import rle_to_mask
from vision_longformer.prediction.predictor import PredictOptions, Predictor
from vision_longformer.prediction.run import PredictionRun

SIZE, FULL = (60, 80), (120, 161)
FACTS = {"downsample": (2.0, 2.0), "full_size": FULL, "pixel_size": (2 * UM, 2 * UM)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run over a list of one slide, read at half of its resolution, without its glass."""
    folder = tmp_path_factory.mktemp("slides")
    (folder / "in").mkdir()
    write_slide(folder / "in/a.ome.tif", slide_pixels()[0])
    (folder / "in/slides.csv").write_text(f"path,mpp,tissue\na.ome.tif,{2 * UM},yes\n")
    weights = trained("instance_segmentation", folder)
    predictor = Predictor(weights, PredictOptions(min_score=0.05))
    outputs = ("geojson", "labels", "csv", "coco")
    sources = find_images([str(folder / "in/slides.csv")])
    with PredictionRun(folder / "out", predictor, root=folder / "in", outputs=outputs) as made:
        (outcome,) = made.predict(sources, on_band=lambda source, share, pixels: None)
        assert outcome.status == "predicted"
        assert outcome.size == (48, 96)
        assert sum(outcome.found) > 3
    return folder / "out"


def test_polygons_cover_the_pixels_of_full_resolution(run: Path) -> None:
    features = json.loads((run / "geojson/a.ome.tif.geojson").read_text())["features"]
    labels = tifffile.imread(run / "labels/a.ome.tif.tif")
    assert labels.shape == (48, 96)
    worst_first = [(feature["geometry"], feature["properties"]["id"]) for feature in reversed(features)]
    drawn = rasterio.features.rasterize(worst_first, (96, 192), dtype="int32")
    np.testing.assert_array_equal(drawn, labels.repeat(2, axis=0).repeat(2, axis=1))
    for feature in features:
        about, area = feature["properties"], shapely.geometry.shape(feature["geometry"]).area
        assert about["area_px"] == about["measurements"]["Area px^2"] == pytest.approx(area)
        assert about["area_um2"] == pytest.approx(area * UM**2)
        assert about["perimeter_um"] == pytest.approx(about["perimeter_px"] * UM)


def test_nothing_is_found_on_glass(run: Path) -> None:
    tissue = slide_pixels()[1]
    features = json.loads((run / "geojson/a.ome.tif.geojson").read_text())["features"]
    for feature in features:
        own = rasterio.features.rasterize([feature["geometry"]], tissue.shape).astype(bool)
        assert tissue[own].mean() > 0.3  # half of it, of a mask that is a little larger than the tissue


def test_tables_are_of_full_resolution(run: Path) -> None:
    features = json.loads((run / "geojson/a.ome.tif.geojson").read_text())["features"]
    objects = pandas.read_csv(run / "objects.csv")
    for row, feature in zip(objects.to_dict("records"), features, strict=True):
        outline = shapely.geometry.shape(feature["geometry"])
        assert [row["centroid_x"], row["centroid_y"]] == pytest.approx([outline.centroid.x, outline.centroid.y])
        assert row["area_px"] == pytest.approx(outline.area)
        assert row["area_um2"] == pytest.approx(outline.area * UM**2)
        assert row["centroid_x_um"] == pytest.approx(outline.centroid.x * UM)
        assert row["width_um"] == pytest.approx((row["x2"] - row["x1"]) * UM)
        assert 0 <= row["x1"] < row["x2"] <= 192
    images = pandas.read_csv(run / "images.csv")
    assert images[["width", "height"]].to_numpy().tolist() == [[192, 96]]


def test_coco_is_of_full_resolution(run: Path) -> None:
    (image,) = json.loads((run / "images.json").read_text())["images"]
    assert (image["height"], image["width"], image["pixel_size_um"]) == (96, 192, [UM, UM])
    objects = pandas.read_csv(run / "objects.csv")
    labels = tifffile.imread(run / "labels/a.ome.tif.tif").repeat(2, axis=0).repeat(2, axis=1)
    drawn = np.zeros((96, 192), int)
    entries = json.loads((run / "results.json").read_text())
    for place, entry in reversed(list(enumerate(entries))):
        row = objects.iloc[place]
        assert entry["bbox"] == pytest.approx([row.x1, row.y1, row.x2 - row.x1, row.y2 - row.y1])
        mask = rle_to_mask(entry["segmentation"])
        assert mask.shape == (96, 192)
        assert mask.sum() == pytest.approx(row.area_px)
        drawn[mask] = place + 1
    np.testing.assert_array_equal(drawn, labels)


def test_a_scale_that_is_no_whole_number() -> None:
    facts = {"downsample": (1.7, 2.3), "full_size": (102, 184), "pixel_size": (1.7 * UM, 2.3 * UM)}
    result = random_objects(3, size=SIZE, facts=facts)
    rows, columns = (np.arange(102) + 0.5) / 1.7, (np.arange(184) + 0.5) / 2.3
    for own, entry in zip(result.masks or [], result.to_coco(), strict=True):
        expected = own[rows.astype(int)[:, None], columns.astype(int)]
        np.testing.assert_array_equal(rle_to_mask(entry["segmentation"]), expected)
    for row, area in zip(result.rows(), result.measures.areas.tolist(), strict=True):
        assert row["area_px"] == pytest.approx(area * 1.7 * 2.3)
        assert "perimeter_px" not in row  # pixels are no squares


def test_classes_of_pixels_at_another_scale() -> None:
    result: Any = random_classes(0, size=SIZE, facts=FACTS)
    for row, count, polygon in zip(result.rows(), result.pixels.tolist(), result.polygons(), strict=True):
        assert row["area_px"] == 4 * count == 4 * polygon.area
        assert row["area_um2"] == pytest.approx(4 * count * UM**2)
    outline = shapely.geometry.shape(result.to_geojson()["features"][1]["geometry"])
    assert outline.area == pytest.approx(4 * result.pixels[1])


def test_the_journal_keeps_boxes_as_they_were_looked_at(run: Path) -> None:
    entries = json.loads((run / "journal/a.ome.tif.json").read_text())
    boxes = np.array(entries["boxes"])
    objects = pandas.read_csv(run / "objects.csv")
    np.testing.assert_allclose(boxes * 2, objects[["x1", "y1", "x2", "y2"]])
