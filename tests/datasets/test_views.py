"""Views: boxes within images, and resizing equal to that of other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vision_longformer.datasets.views import centre_boxes, draw_boxes, flip, jitter_colours, resample

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def noise(count: int, side: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)


@pytest.mark.parametrize(("stored", "size"), [(64, 23), (64, 64), (96, 61), (37, 64), (40, 80), (64, 1)])
def test_a_whole_image_is_resized_as_pytorch_does(stored: int, size: int) -> None:
    images = noise(2, stored)
    expected = F.interpolate(images.float(), size=(size, size), mode="bicubic", antialias=True).div(255).clamp(0, 1)
    # The kernel is the same (a = −1/2); enlarging, PyTorch drops what lies outside the image, and so do we.
    assert torch.allclose(resample(images, WHOLE.expand(2, 4), size), expected, atol=2e-4)


def test_a_box_on_whole_pixels_at_their_size_is_the_pixels_themselves() -> None:
    images = noise(1, 64)
    box = torch.tensor([[8 / 64, 16 / 64, 32 / 64, 32 / 64]])
    assert torch.allclose(resample(images, box, 32), images[:, :, 8:40, 16:48] / 255, atol=1e-5)


def test_rows_and_columns_are_not_confused() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).expand(3, 64, 64)[None] * 4  # bright to the right
    view = resample(ramp, torch.tensor([[0.0, 0.5, 1.0, 0.5]]), 16)
    assert (view.diff(dim=3) > 0).all()
    assert view.diff(dim=2).abs().max() < 1e-5
    assert view.min() > 0.48


def test_images_do_not_change_each_other() -> None:
    images, boxes = noise(37, 32), torch.rand(37, 4) * 0.4 + 0.1
    together = resample(images, boxes, 20)
    assert torch.equal(together[35:36], resample(images[35:36], boxes[35:36], 20))


@pytest.mark.parametrize("aspect", [0.5, 0.8, 1.0, 1.7, 2.0])
def test_random_boxes_lie_within_the_image_and_have_the_share_and_shape_asked_for(aspect: float) -> None:
    randoms = np.random.default_rng(0).random((500, 4))
    aspects = np.full(500, aspect, np.float32)
    boxes = draw_boxes(randoms, aspects, scale=(0.2, 0.4), ratio=(0.8, 1.25))
    top, left, height, width = boxes.T
    assert (boxes >= 0).all()
    assert (top + height <= 1 + 1e-6).all()
    assert (left + width <= 1 + 1e-6).all()
    inside = (height < 1) & (width < 1)  # others were cut at the edge
    assert inside.mean() > 0.9
    assert np.allclose((height * width)[inside], (0.2 + 0.2 * randoms[:, 0])[inside], atol=1e-5)
    shape = (width * aspect / height)[inside]
    assert shape.min() >= 0.8 - 1e-5
    assert shape.max() <= 1.25 + 1e-5


def test_centre_boxes_are_squares_in_the_middle() -> None:
    boxes = centre_boxes(np.array([2.0, 0.5, 1.0], np.float32))
    assert boxes.tolist() == [[0, 0.25, 1, 0.5], [0.25, 0, 0.5, 1], [0, 0, 1, 1]]


def test_flips_are_of_whole_images_and_as_frequent_as_asked_for() -> None:
    images = torch.rand(400, 3, 2, 2)
    torch.manual_seed(0)
    found = flip(images, 0.3)
    same, mirrored = (found == images).all((1, 2, 3)), (found == images.flip(3)).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 0.2 < mirrored.float().mean() < 0.4
    assert torch.equal(flip(images, 0.0), images)


def test_colour_jitter_keeps_gray_gray_and_values_in_range() -> None:
    gray = torch.rand(16, 1, 5, 7).expand(-1, 3, -1, -1)
    found = jitter_colours(gray, 0.4)
    assert torch.allclose(found[:, 0], found[:, 2], atol=1e-5)
    assert found.min() >= 0
    assert found.max() <= 1
    assert len({round(float(image.mean()), 4) for image in found}) == 16
    assert jitter_colours(gray, 0.0) is gray
