from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from rasterio.crs import CRS
from skimage.measure import perimeter_crofton, regionprops

from prediction.cases import UTM, blob
from vision_longformer.prediction.measures import ImageFacts, measure_boxes, measure_masks, perimeter


@pytest.mark.parametrize("seed", range(5))
def test_masks_measure_what_scikit_image_measures(seed: int) -> None:
    generator = np.random.default_rng(seed)
    mask = blob((50, 60), (25, 30), (18, 11)) & (generator.random((50, 60)) < 0.95)
    found = measure_masks([(mask, (7, 3))])
    (region,) = regionprops(mask.astype(np.uint8))
    assert found.areas == region.area
    np.testing.assert_allclose(found.centroids[0] - [3.5, 7.5], region.centroid[::-1])  # whose pixels are points
    np.testing.assert_allclose(found.perimeters, perimeter_crofton(mask, directions=4))


def test_the_perimeter_of_a_circle_is_near_that_of_the_curve() -> None:
    assert perimeter(blob((99, 99), (49, 49), (40, 40))) == pytest.approx(2 * math.pi * 40, rel=0.01)


def test_boxes_and_empty_masks() -> None:
    found = measure_boxes(np.array([[1, 2, 4, 8]]))
    assert (found.areas[0], found.perimeters[0], found.centroids[0].tolist()) == (18, 18, [2.5, 5])
    empty = measure_masks([(np.zeros((0, 0), bool), (0, 0))])
    assert empty.areas[0] == empty.perimeters[0] == 0
    assert np.isnan(empty.centroids).all()


@pytest.mark.parametrize(
    ("facts", "name", "area", "length"),
    [
        ({"pixel_size": (0.5, 0.5)}, "um", 0.25, 0.5),
        ({"pixel_size": (0.5, 0.25)}, "um", 0.125, None),
        ({"georeference": UTM}, "m", 0.0625, 0.25),
        ({"georeference": UTM | {"transform": [0.6, 0.8, 0, 0.8, -0.6, 0]}}, "m", 1.0, 1.0),  # turned
        ({"georeference": UTM | {"crs": CRS.from_epsg(2263).to_wkt()}}, "m", (0.25 * 1200 / 3937) ** 2, 0.0762),  # feet
    ],
)
def test_units(facts: dict[str, Any], name: str, area: float, length: float | None) -> None:
    unit = ImageFacts("x", (3, 4), **facts).unit
    assert unit is not None
    assert unit.name == name
    assert unit.area == pytest.approx(area)
    assert unit.length == (None if length is None else pytest.approx(length, rel=1e-4))


def test_degrees_are_no_unit_of_length() -> None:
    degrees = {"crs": CRS.from_epsg(4326).to_wkt(), "transform": [1e-5, 0, 8, 0, -1e-5, 47]}
    assert ImageFacts("x", (3, 4), degrees).unit is None
    assert ImageFacts("x", (3, 4)).unit is None
