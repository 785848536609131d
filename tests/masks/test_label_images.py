from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vision_longformer.masks import run_lengths
from vision_longformer.masks.label_images import objects_of


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int32, np.uint32])
def test_each_number_is_an_object_with_its_mask_its_tightest_box_and_its_area(dtype: type) -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        size = tuple(generator.integers(1, 12, 2))
        labels: NDArray[Any] = (generator.integers(0, 5, size) * generator.integers(0, 2, size) * 50).astype(dtype)
        found = objects_of(labels)
        numbers = [number for number in np.unique(labels).tolist() if number]
        assert found.numbers.tolist() == numbers
        for number, box, area, runs in zip(numbers, found.boxes.tolist(), found.areas, found.runs, strict=True):
            mask = labels == number
            rows, columns = np.nonzero(mask)
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert area == mask.sum()
            assert runs.tolist() == run_lengths.from_mask(mask).tolist()


def test_objects_of_large_numbers_keep_them() -> None:
    labels = np.zeros((4, 3), np.uint32)
    labels[1:, 2] = 4_000_000_000
    found = objects_of(labels)
    assert found.numbers.tolist() == [4_000_000_000]
    assert found.boxes.tolist() == [[2, 1, 3, 4]]


def test_an_image_without_objects_has_none() -> None:
    found = objects_of(np.zeros((3, 5), np.uint16))
    assert found.boxes.shape == (0, 4)
    assert found.runs == []
