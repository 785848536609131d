"""GeoJSON as others read it."""

from __future__ import annotations

import json
import re
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.features import rasterize
from shapely.geometry import shape

from prediction.cases import UTM, blob, random_classes, random_objects
from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.masks.rle import crop_to_rle
from vision_longformer.prediction.measures import ImageFacts
from vision_longformer.prediction.results import ObjectsResult

UTM_CODE = "urn:ogc:def:crs:EPSG::32633"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("masks", [True, False])
def test_rasterised_polygons_are_the_label_image(seed: int, masks: bool, tmp_path: Path) -> None:
    result = random_objects(seed, masks=masks)
    features = json.loads(result.save(tmp_path / "x.geojson").read_text())["features"]
    assert len(features) == len(result)
    worst_first = [(feature["geometry"], feature["properties"]["id"]) for feature in reversed(features)]
    burnt = rasterize(worst_first, result.image.size, dtype=np.uint32)
    np.testing.assert_array_equal(burnt, result.labels)


@pytest.mark.parametrize("missing", [True, False])
def test_rasterised_classes_are_the_index_image(missing: bool) -> None:
    result = random_classes(1, missing=missing)
    features = result.to_geojson()["features"]
    assert [feature["properties"]["class"] for feature in features] == ["cell", "=1+1", "unused"]
    shapes = [(feature["geometry"], feature["properties"]["class_number"]) for feature in features]
    fill = 255 if missing else 99
    np.testing.assert_array_equal(rasterize(shapes, result.image.size, fill=fill, dtype=np.uint8), result.labels)


@pytest.mark.parametrize("seed", range(2))
def test_map_coordinates_lie_on_the_images_pixels(seed: int, tmp_path: Path) -> None:
    result = random_objects(seed, facts={"georeference": UTM})
    path = result.save(tmp_path / "x.geojson")
    assert json.loads(path.read_text())["crs"]["properties"]["name"] == UTM_CODE
    about = pyogrio.read_info(path)
    assert (about["crs"], about["features"]) == ("EPSG:32633", len(result))
    features = json.loads(path.read_text())["features"]
    worst_first = [(feature["geometry"], feature["properties"]["id"]) for feature in reversed(features)]
    transform = rasterio.Affine(*UTM["transform"])
    burnt = rasterize(worst_first, result.image.size, transform=transform, dtype=np.uint32)
    np.testing.assert_array_equal(burnt, result.labels)
    in_pixels = result.to_geojson(coordinates="pixels")
    assert "crs" not in in_pixels
    x1, y1, x2, y2 = shape(in_pixels["features"][0]["geometry"]).bounds
    assert [x1, y1, x2, y2] == result.boxes[0].tolist()


def test_systems_without_a_code_become_degrees() -> None:
    local = CRS.from_proj4("+proj=tmerc +lat_0=47 +lon_0=8 +x_0=100 +y_0=200 +ellps=GRS80 +towgs84=0,0,0 +units=m")
    place = {"crs": local.to_wkt(), "transform": [1, 0, 100, 0, -1, 200]}
    collection = random_objects(0, facts={"georeference": place}).to_geojson()
    assert "crs" not in collection
    bounds = shape(collection["features"][0]["geometry"]).bounds
    assert all(8 <= x <= 8.01 for x in bounds[::2])
    assert all(46.99 <= y <= 47 for y in bounds[1::2])


def test_longitude_and_latitude_need_no_name() -> None:
    place = {"crs": CRS.from_epsg(4326).to_wkt(), "transform": [1e-5, 0, 8, 0, -1e-5, 47]}
    collection = random_objects(0, facts={"georeference": place}).to_geojson()
    assert "crs" not in collection
    assert 8 <= shape(collection["features"][0]["geometry"]).bounds[0] <= 8.01


def test_map_coordinates_need_a_map() -> None:
    with pytest.raises(ValueError, match="coordinates=map: the image does not say where on earth it lies"):
        random_objects(0).to_geojson(coordinates="map")


def test_features_are_what_qupath_reads() -> None:
    result = random_objects(2, facts={"pixel_size": (0.5, 0.5)})
    feature = result.to_geojson()["features"][0]
    assert uuid.UUID(feature["id"]).version == 5
    properties = feature["properties"]
    assert properties["objectType"] == "detection"
    classification = properties["classification"]
    assert classification["name"] == result.classes[0]
    assert [type(value) for value in classification["color"]] == [int] * 3
    measurements = properties["measurements"]
    assert all(isinstance(value, float) for value in measurements.values())
    assert measurements["Score"] == result.scores[0]
    assert measurements["Area µm^2"] == measurements["Area px^2"] / 4 == shape(feature["geometry"]).area / 4
    again = random_objects(2, facts={"pixel_size": (0.5, 0.5)}).to_geojson()
    identifiers = [feature["id"] for feature in again["features"]]
    assert identifiers[0] == feature["id"]
    assert len(set(identifiers)) == len(result)
    annotation = random_classes(0).to_geojson()["features"][1]["properties"]
    assert annotation["objectType"] == "annotation"


def test_outer_rings_run_as_the_standard_says() -> None:
    for feature in random_objects(3).to_geojson()["features"]:
        geometry: Any = shape(feature["geometry"])
        for part in getattr(geometry, "geoms", [geometry]):
            assert part.exterior.is_ccw
            assert not any(hole.is_ccw for hole in part.interiors)


def test_nothing_found_is_an_empty_collection(tmp_path: Path) -> None:
    nothing = FoundObjects(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), [])
    result = ObjectsResult(image=ImageFacts("x", (5, 6)), class_names=("a",), objects=nothing)
    assert result.to_geojson() == {"type": "FeatureCollection", "features": []}
    assert not result.labels.any()
    result.save(tmp_path / "x.gpkg")
    assert pyogrio.read_info(tmp_path / "x.gpkg")["features"] == 0


@pytest.mark.slow
def test_ten_thousand_objects_take_seconds(tmp_path: Path) -> None:
    side, count, generator = 25, 100, np.random.default_rng(0)
    size = (count * side, count * side)
    corners = [(row * side, column * side) for row in range(count) for column in range(count)]
    masks = [
        crop_to_rle(blob((side, side), (12, 12), tuple(generator.uniform(6, 12, 2))), corner=corner, size=size)
        for corner in corners
    ]
    boxes = np.array([[x, y, x + side, y + side] for y, x in corners], float)
    found = FoundObjects(boxes, np.linspace(1, 0, len(masks)), np.zeros(len(masks), int), masks)
    result = ObjectsResult(image=ImageFacts("x", size), class_names=("cell",), objects=found)
    start = time.process_time()  # which other programs do not lengthen
    path = result.save(tmp_path / "x.geojson")
    assert time.process_time() - start < 10
    assert len(re.findall('"Feature"', path.read_text())) == 10_000
