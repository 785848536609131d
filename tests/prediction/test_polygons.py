from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize

from prediction.cases import blob
from vision_longformer.prediction.polygons import box_to_polygon, mask_to_polygon


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.2, 0.5, 0.7, 0.9]))
def test_a_polygon_covers_exactly_its_mask(seed: int, share: float) -> None:
    generator = np.random.default_rng(seed)
    mask = generator.random(generator.integers(1, 11, 2)) < share
    outline = mask_to_polygon(mask)
    assert outline.is_valid, shapely.is_valid_reason(outline)
    assert outline.area == mask.sum()
    if mask.any():
        assert (rasterize([outline], mask.shape) == mask).all()


def test_holes_islands_and_corners_that_touch() -> None:
    mask = np.zeros((9, 9), bool)
    mask[0:7, 0:7], mask[1:6, 1:6], mask[2:5, 2:5], mask[3, 3] = True, False, True, False  # a ring in a ring
    mask[7:, 7:] = True  # touches the outer ring at a corner
    outline = mask_to_polygon(mask, corner=(10, 20))
    assert isinstance(outline, shapely.MultiPolygon)
    assert sorted((part.area, len(part.interiors)) for part in outline.geoms) == [(4, 0), (8, 1), (24, 1)]
    assert outline.bounds == (20, 10, 29, 19)


def test_vertices_are_where_the_outline_turns() -> None:
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:7] = True
    outline = mask_to_polygon(mask)
    assert outline.equals(shapely.box(2, 1, 7, 4))
    assert shapely.get_num_coordinates(outline) == 5


def test_an_empty_mask_has_an_empty_polygon() -> None:
    assert mask_to_polygon(np.zeros((3, 4), bool)).is_empty
    assert mask_to_polygon(np.zeros((0, 0), bool)).is_empty


@pytest.mark.parametrize("tolerance", [1.0, 2.0, 3.0])
def test_simplified_outlines_stay_near_and_valid(tolerance: float) -> None:
    exact = mask_to_polygon(blob((80, 90), (40, 45), (31, 25)))
    simple = mask_to_polygon(blob((80, 90), (40, 45), (31, 25)), tolerance=tolerance)
    assert simple.is_valid
    assert shapely.get_num_coordinates(simple) < shapely.get_num_coordinates(exact) / 2
    assert shapely.hausdorff_distance(simple, exact) <= tolerance + 1e-9


def test_boxes() -> None:
    assert box_to_polygon(np.array([1.5, 2, 4, 7.25])).bounds == (1.5, 2, 4, 7.25)
