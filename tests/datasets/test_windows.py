"""Windows of large images: the pixels and labels that the whole image has there, drawn by class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.raster_cases import HEIGHT, WIDTH, make_index, make_polygons, raster
from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.dense_loaders import read_label
from vision_longformer.datasets.labels import Split, Wanted, read_labels
from vision_longformer.datasets.semantic import SemanticSplit, coco_label
from vision_longformer.datasets.window_sampling import WindowSampler, counted, grid, reading_cells
from vision_longformer.datasets.windows import place_of, windows_of
from vision_longformer.images import MAX_PIXELS, Reading
from vision_longformer.segmentation.config import UNLABELLED
from vision_longformer.utils.steps import finish

READING = Reading(channels=(0, 1, 2, 3))
WINDOW = 32


def whole(data: Path, **wanted: Any) -> Split:
    return finish(read_labels(data, "train", Wanted("classes", read_labels=False, reading=READING, **wanted)))


def cells_of(split: Split, window: int = WINDOW) -> Any:
    return finish(reading_cells(split, window, max_pixels=MAX_PIXELS))


def test_cells_count_the_pixels_of_each_class(tmp_path: Path) -> None:
    split, (_, label) = whole(make_index(tmp_path)), raster(0)
    cells = cells_of(split, 96)
    assert cells.side == 64
    for (_, top, left), counts in zip(cells.places.tolist(), cells.counts, strict=True):
        part = label[top : top + 64, left : left + 64]
        assert counts.tolist() == [(part == number).sum() for number in range(3)]
    assert len(cells.places) == 3 * 4
    known = counted(split, cells)
    assert isinstance(known, SemanticSplit)
    assert known.counts is not None
    assert known.counts.tolist() == np.bincount(np.minimum(label, 3).ravel()).tolist()


@pytest.mark.parametrize("make", [make_index, make_polygons])
def test_a_grid_has_every_labelled_pixel_once_as_the_whole_image_has_it(make: Any, tmp_path: Path) -> None:
    split, (values, label) = whole(make(tmp_path)), raster(0)
    windows = windows_of(split, grid(split, cells_of(split), WINDOW))
    seen = np.zeros((HEIGHT, WIDTH), int)
    expected = coco_label(split, 0) if isinstance(split, CocoSplit) else label
    for number in range(len(windows)):
        _, window = place_of(windows.windows[number])
        place = slice(window.top, window.bottom), slice(window.left, window.right)
        seen[place] += 1
        label_there = np.where(expected[place] == 255, UNLABELLED, expected[place].astype(int))
        np.testing.assert_array_equal(read_label(windows, number, max_pixels=MAX_PIXELS), label_there)
        read = np.asarray(windows.read(number))
        assert read.shape[:2] == tuple(windows.sizes[number])
        np.testing.assert_allclose(read, values[place] / 65535, atol=1e-6)
    assert seen.max() == 1
    assert seen[label < 255].all()
    if isinstance(split, SemanticSplit):
        assert len(windows) == 5 * 5  # of 5 times 7: nothing is labelled from column 140 on


def test_objects_of_a_window_are_cut_to_it(tmp_path: Path) -> None:
    split = whole(make_polygons(tmp_path))
    windows = windows_of(split, np.array([[0, 50, 70, 60, 55], [0, 0, 140, 20, 20]]))
    assert isinstance(windows, CocoSplit)
    assert windows.ends.tolist() == [2, 2]
    assert windows.boxes.tolist() == [[0, 0, 10, 10], [50, 50, 55, 56]]
    assert windows.areas.tolist() == [100, 30]
    assert [windows.classes[label] for label in windows.labels] == ["water", "roof"]


def test_missing_pixels_have_no_class(tmp_path: Path) -> None:
    split = whole(make_index(tmp_path, nodata=0))
    windows = windows_of(split, np.array([[0, 10, 90, 20, 20]]))
    label = read_label(windows, 0, valid=windows.read_and_valid(0)[1], max_pixels=MAX_PIXELS)
    assert (label[:, :10] == 0).all()
    assert (label[:, 10:] == UNLABELLED).all()


def test_windows_are_drawn_by_class_and_hold_it(tmp_path: Path) -> None:
    split, (_, label) = whole(make_index(tmp_path)), raster(0)
    cells, generator = cells_of(split), np.random.default_rng(0)
    found = {sampling: np.zeros(3, int) for sampling in ("classes", "uniform")}
    for sampling, counts in found.items():
        sampler = WindowSampler(cells, split.sizes, sampling, of_objects=False)  # type: ignore[arg-type]
        for _ in range(300):
            image, window = place_of(sampler.draw(generator.random(4), WINDOW))
            assert (image, window.height, window.width) == (0, WINDOW, WINDOW)
            assert 0 <= window.top <= HEIGHT - WINDOW
            assert 0 <= window.left <= WIDTH - WINDOW
            part = label[window.top : window.bottom, window.left : window.right]
            counts += [(part == number).any() for number in range(3)]
            assert (part < 255).any()
    assert found["classes"][2] >= 100
    assert found["uniform"][2] < 30


def test_a_window_may_lie_anywhere_and_be_larger_than_its_image(tmp_path: Path) -> None:
    split = whole(make_polygons(tmp_path))
    sampler = WindowSampler(cells_of(split), split.sizes, "uniform", of_objects=True)
    draws = np.array([sampler.draw(np.random.default_rng(seed).random(4), WINDOW) for seed in range(2000)])
    assert (draws[:, 1].min(), draws[:, 1].max()) == (0, HEIGHT - WINDOW)
    assert (draws[:, 2].min(), draws[:, 2].max()) == (0, WIDTH - WINDOW)
    assert sampler.draw(np.array([0.9, 0.9, 0.9, 0.9]), 500).tolist() == [0, 0, 0, HEIGHT, WIDTH]
