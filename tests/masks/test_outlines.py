"""Run lengths of polygons, and masks in windows: against rasterio, and against whole masks."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from vision_longformer.images.reader import Window
from vision_longformer.masks import run_lengths
from vision_longformer.masks.outlines import outline_to_runs, runs_to_box
from vision_longformer.masks.rle import mask_to_box, segmentation_to_mask
from vision_longformer.masks.windows import runs_in_window, segmentation_in_window
from vision_longformer.utils.flat import Segmentations

WINDOWS = (Window(0, 0, 5, 4), Window(-3, 7, 11, 13), Window(19, -2, 9, 40), Window(2, 3, 40, 1))


def part_of(mask: np.ndarray, window: Window) -> np.ndarray:
    padded = np.pad(mask, 60)[window.top + 60 :, window.left + 60 :]
    return padded[: window.height, : window.width]


def random_outline(seed: int, size: tuple[int, int]) -> shapely.MultiPolygon:
    """Return a random area with holes and parts, some of it outside of the image."""
    generator = np.random.default_rng(seed)
    points = generator.random((generator.integers(3, 10), 2)) * np.array(size[::-1]) * 1.4 - 4
    parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(shapely.Polygon(points))))
    return shapely.MultiPolygon([part for part in parts if part.geom_type == "Polygon"])


@pytest.mark.parametrize("seed", range(20))
def test_pixels_of_an_outline_are_those_of_rasterio(seed: int) -> None:
    features = pytest.importorskip("rasterio.features")
    size = (23, 31)
    outline = random_outline(seed, size)
    expected = features.rasterize([outline], size) > 0
    runs = outline_to_runs(outline, size)
    np.testing.assert_array_equal(run_lengths.to_mask(runs, size), expected)
    np.testing.assert_array_equal(runs, run_lengths.from_mask(expected))
    assert runs_to_box(runs, size[0]) == mask_to_box(expected)


def test_a_hole_stays_a_hole_and_an_outline_outside_is_empty() -> None:
    ring = shapely.box(1, 1, 8, 8).difference(shapely.box(3, 3, 6, 5))
    mask = run_lengths.to_mask(outline_to_runs(ring, (9, 10)), (9, 10))
    assert mask.sum() == 49 - 6
    assert not mask[3:5, 3:6].any()
    assert run_lengths.area(outline_to_runs(shapely.box(20, 20, 30, 30), (9, 10))) == 0


def test_images_of_more_pixels_than_32_bits_count() -> None:
    size = (100_000, 100_000)
    runs = outline_to_runs(shapely.box(99_990, 99_995, 100_000, 100_000), size)
    assert int(runs.sum(dtype=np.int64)) == 10**10
    found = runs_in_window(runs, height=size[0], window=Window(99_990, 99_985, 10, 15))
    np.testing.assert_array_equal(found, np.pad(np.ones((5, 10), bool), ((5, 0), (5, 0))))


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_of_a_mask_is_cut_out_of_the_whole_one(window: Window) -> None:
    mask = np.random.default_rng(3).random((29, 37)) < 0.5
    runs = run_lengths.from_mask(mask)
    np.testing.assert_array_equal(runs_in_window(runs, height=29, window=window), part_of(mask, window))


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_of_a_polygon_is_cut_out_of_its_mask(window: Window) -> None:
    pytest.importorskip("faster_coco_eval")
    points = np.random.default_rng(1).random((7, 2)) * [31, 23]
    one = np.array([1])
    segmentations = Segmentations(one, one < 0, one - 1, one * points.size, points.ravel(), np.zeros(0, np.uint32))
    whole = segmentation_to_mask(segmentations, 0, (23, 31))
    found = segmentation_in_window(segmentations, 0, height=23, window=window)
    np.testing.assert_array_equal(found, part_of(whole, window))
