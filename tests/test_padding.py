"""Which positions of a batch's maps are real."""

from __future__ import annotations

import pytest
import torch

from detection.cases import batch_of
from model_helpers import noise
from vision_longformer.padding import check_batch, find_level_paddings

CPU = torch.device("cpu")


def test_a_position_is_real_if_it_holds_a_real_pixel() -> None:
    (level,) = find_level_paddings([(9, 17), (8, 16), (1, 1)], [8], batch_size=(20, 24), device=CPU)
    assert level.sizes is not None
    assert level.sizes.tolist() == [[2, 3], [1, 2], [1, 1]]
    assert level.valid is not None
    assert level.valid.shape == (3, 3, 3)
    assert level.valid.int().tolist() == [
        [[1, 1, 1], [1, 1, 1], [0, 0, 0]],
        [[1, 1, 0], [0, 0, 0], [0, 0, 0]],
        [[1, 0, 0], [0, 0, 0], [0, 0, 0]],
    ]


def test_images_that_fill_the_batch_need_no_mask() -> None:
    first, second = find_level_paddings([(9, 17), (10, 17)], [1, 4], batch_size=(10, 17), device=CPU)
    assert first.valid is not None
    assert second.valid is None
    x = noise(2, 3, 3, 5)
    assert second.clean_planes(x) is x
    assert second.extend_planes(x) is x


def test_padding_becomes_zero_or_the_edge_whatever_it_held() -> None:
    maps = [noise(2, 3, 4, seed=1), noise(2, 1, 2, seed=2)]
    level, _ = find_level_paddings([(3, 4), (1, 2)], [1, 2], batch_size=(4, 5), device=CPU)
    x = batch_of(maps, extra=1)
    cleaned, extended = level.clean_planes(x), level.extend_planes(x)
    assert cleaned.shape == extended.shape == (2, 2, 4, 5)
    for number, own in enumerate(maps):
        height, width = own.shape[1:]
        assert torch.equal(cleaned[number, :, :height, :width], own)
        assert not cleaned[number, :, height:].any()
        assert not cleaned[number, :, :, width:].any()
        for row in range(4):
            for column in range(5):
                edge = own[:, min(row, height - 1), min(column, width - 1)]
                assert torch.equal(extended[number, :, row, column], edge)


def test_sizes_are_checked() -> None:
    images = torch.zeros(2, 3, 10, 20)
    assert check_batch(images, None) == ((10, 20), (10, 20))
    assert check_batch(images, torch.tensor([[1, 20], [10, 2]])) == ((1, 20), (10, 2))
    with pytest.raises(
        ValueError, match=r"image_sizes: expected 2 pairs of integers .*, got torch.int64 of shape \(1, 2"
    ):
        check_batch(images, [(1, 2)])
    with pytest.raises(ValueError, match=r"image_sizes: expected .* got torch.float32"):
        check_batch(images, torch.ones(2, 2))
    for wrong in ((11, 20), (10, 21), (0, 5), (5, 0)):
        with pytest.raises(
            ValueError, match=r"image_sizes\[1\]=\(\d+, \d+\): must lie between \(1, 1\) and .*\(10, 20\)"
        ):
            check_batch(images, [(1, 1), wrong])
    with pytest.raises(ValueError, match=r"images: expected normalised .* got torch.uint8"):
        check_batch(images.byte(), None)
    with pytest.raises(ValueError, match=r"images: expected at least one image, got \(0, 3, 10, 20\)"):
        check_batch(images[:0], None)
