"""Polygons in GeoJSON as labels: what QuPath exports, what `vil predict` writes, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from datasets.label_cases import SIZE, photograph
from images.test_scale import pyramid
from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.geojson import geojson_files
from vision_longformer.datasets.labels import Wanted, class_names, read_labels
from vision_longformer.datasets.semantic import coco_label
from vision_longformer.images import Reading
from vision_longformer.masks.rle import segmentation_to_mask
from vision_longformer.prediction.polygons import mask_to_polygon
from vision_longformer.utils.steps import finish

SQUARE = shapely.box(4, 3, 9, 11)


def feature(outline: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": json.loads(shapely.to_geojson(outline)), "properties": properties}


def write(data: Path, *features: Any, split: str = "train", name: str = "a.geojson", **members: Any) -> Path:
    photograph(data / split / "a.png")
    content = {"type": "FeatureCollection", **members, "features": list(features)}
    (data / split / name).write_text(json.dumps(content))
    return data


def read(data: Path, **wanted: Any) -> CocoSplit:
    split = finish(read_labels(data, "train", Wanted(**{"what": "masks", **wanted})))
    assert isinstance(split, CocoSplit)
    return split


def test_objects_have_the_classes_of_qupath_and_exactly_their_pixels(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random(SIZE) < 0.4  # holes, and parts that touch at corners
    cell = feature(mask_to_polygon(mask), objectType="detection", classification={"name": "cell", "color": [1, 2, 3]})
    other = feature(SQUARE, classification={"names": ["tumour", "positive"]})
    split = read(write(tmp_path, cell, other, feature(SQUARE, classification={"name": "Ignore*"})))
    assert split.classes == ("cell", "tumour: positive")
    assert split.labels.tolist() == [0, 1]
    assert split.boxes[1].tolist() == [4, 3, 9, 11]
    assert split.areas.tolist() == [mask.sum(), 40]
    assert split.segmentations is not None
    np.testing.assert_array_equal(segmentation_to_mask(split.segmentations, 0, SIZE), mask)


def test_classes_of_pixels_come_with_a_background(tmp_path: Path) -> None:
    data = write(tmp_path, feature(SQUARE, **{"class": "road"}), feature(SQUARE, **{"class": "background"}))
    split = read(data, what="classes")
    assert class_names(split, "classes") == ("background", "road")
    label = coco_label(split, 0)
    assert label.sum() == label[3:11, 4:9].sum() == 40
    again = read(data, what="classes", classes=("background", "road", "roof"))
    assert again.classes == ("road", "roof")


@pytest.mark.parametrize("name", ["a.geojson", "a.png.geojson", "../train_labels/a.geojson", "labels/a.geojson"])
def test_files_lie_beside_images_or_in_a_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
    split = read(write(tmp_path, feature(SQUARE), name=name), class_name="nucleus")
    assert (split.classes, len(split)) == (("nucleus",), 1)
    assert split.path(0) == tmp_path / "train" / "a.png"


def test_images_and_files_without_each_other_are_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        photograph(tmp_path / "train" / name)
    for name in ("a.geojson", "c.geojson"):
        (tmp_path / "train" / name).write_text("{}")

    found, remarks = geojson_files(tmp_path, "train")

    assert found == [(tmp_path / "train/a.png", tmp_path / "train/a.geojson")]
    assert remarks == (
        f"{tmp_path / 'train'}: 1 image without a GeoJSON file: b.png",
        f"{tmp_path}: 1 GeoJSON file without an image: train/c.geojson",
    )


def test_a_list_of_features_and_one_feature_are_read_too(tmp_path: Path) -> None:
    data = write(tmp_path)
    for content in ([feature(SQUARE), feature(SQUARE)], feature(SQUARE)):
        (data / "train" / "a.geojson").write_text(json.dumps(content))
        assert len(read(data).labels) == (len(content) if isinstance(content, list) else 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (feature(shapely.Point(3, 4)), r"a\.geojson: feature 2 is a Point, and no polygon"),
        ({"type": "Feature"}, r"a\.geojson: feature 2 is damaged"),
        (7, r"a\.geojson: feature 2 is damaged"),
        (feature(shapely.box(900, 900, 950, 950)), r"object 2 covers the centre of no pixel of the image, 53×37"),
        (feature(SQUARE, classification={"name": "bird"}), r"object 2 is bird, none of object"),
    ],
)
def test_what_cannot_be_used_is_named_or_left_out(wrong: Any, message: str, tmp_path: Path) -> None:
    data = write(tmp_path, feature(SQUARE), wrong)
    with pytest.raises(ValueError, match=message):
        read(data, classes=("object",))
    split = read(data, classes=("object",), skip_invalid=True)
    assert (len(split.labels), sum(split.skipped.values())) == (1, 1)


def test_what_is_no_geojson_and_what_is_on_no_map_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path, feature(SQUARE), crs={"properties": {"name": "urn:ogc:def:crs:EPSG::32633"}})
    with pytest.raises(ValueError, match="its image does not say where on earth it lies"):
        read(data)
    (data / "train" / "a.geojson").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        read(data)


@pytest.mark.parametrize("reading", [Reading(level=1), Reading(mpp=0.5)])
def test_coordinates_are_those_of_full_resolution(reading: Reading, tmp_path: Path) -> None:
    data = write(tmp_path, feature(shapely.box(8, 6, 18, 22)), name="b.geojson")
    pyramid(data / "train" / "b.tif", um=0.25, levels=2)
    split = read(data, reading=reading)
    assert split.boxes.tolist() == [[4, 3, 9, 11]]
    assert split.sizes.tolist() == [[48, 96]]


@pytest.mark.parametrize("coordinates", ["pixels", "EPSG:32633", "degrees"])
def test_map_coordinates_are_found_in_a_georeferenced_image(coordinates: str, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    from rasterio.warp import transform_geom

    data = write(tmp_path, name="b.geojson")
    about = {"driver": "GTiff", "height": 37, "width": 53, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open(data / "train/b.tif", "w", transform=rasterio.Affine(2, 0, 5e5, 0, -2, 5e6), **about) as file:
        file.write(np.ones((1, 37, 53), np.uint8))
    outline = SQUARE
    if coordinates != "pixels":
        outline = shapely.transform(SQUARE, lambda points: points * [2, -2] + [5e5, 5e6])
    entry = feature(outline)
    members: dict[str, Any] = {}
    if coordinates == "degrees":
        entry["geometry"] = transform_geom("EPSG:32633", "EPSG:4326", entry["geometry"])
    elif coordinates != "pixels":
        members = {"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}}
    split = read(write(tmp_path, entry, name="b.geojson", **members))
    assert split.boxes.tolist() == [[4, 3, 9, 11]]
    assert split.areas.tolist() == [40]
