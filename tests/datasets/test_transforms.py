from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vision_longformer.datasets.transforms import (
    Augmentation,
    draw,
    fitted_size,
    grouped_by_orientation,
    image_to_tensor,
    transformed_boxes,
    transformed_map,
)
from vision_longformer.masks.rle import mask_to_box
from vision_longformer.utils.seeding import epoch_order, seed_sample

SIZE = (30, 44)  # (height, width)
MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)


@pytest.mark.parametrize(
    ("size", "side", "max_side", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((640, 480), 800, 1333, (1067, 800)),
        ((400, 1000), 800, 1333, (533, 1333)),
        ((37, 53), 37, 100, (37, 53)),
        ((1, 5000), 640, 1333, (1, 1333)),
    ],
)
def test_the_shorter_side_is_what_is_asked_unless_the_longer_one_would_be_too_long(
    size: tuple[int, int], side: int, max_side: int, expected: tuple[int, int]
) -> None:
    assert fitted_size(size, side=side, max_side=max_side) == expected


def test_draws_depend_on_the_position_in_training_alone_and_reach_every_side() -> None:
    def drawn(epoch: int, image: int, repeat: int) -> Augmentation:
        seed_sample(5, epoch=epoch, image=image, repeat=repeat)
        return draw(SIZE, sides=(60, 90, 120), max_side=200, horizontal_flip=0.3)

    positions = [(epoch, image, repeat) for epoch in range(10) for image in range(15) for repeat in range(2)]
    first = {position: drawn(*position) for position in positions}
    assert first == {position: drawn(*position) for position in reversed(positions)}
    heights = [augmentation.size[0] for augmentation in first.values()]
    assert set(heights) == {60, 90, 120}
    assert all(70 < heights.count(side) < 130 for side in (60, 90, 120))
    assert 60 < sum(augmentation.flipped for augmentation in first.values()) < 120


OPTIONS: list[dict[str, Any]] = [
    {"sides": (60,), "horizontal_flip": 0.0},
    {"sides": (60, 90), "horizontal_flip": 1.0},
    {"sides": None, "horizontal_flip": 1.0, "vertical_flip": 1.0, "scale": (0.5, 2.0), "crop": 16},
]


def test_a_draw_takes_as_many_numbers_whatever_the_options() -> None:
    states = []
    for options in OPTIONS:
        torch.manual_seed(0)
        drawn = draw(SIZE, max_side=200, **options)
        assert drawn.flipped == (options["horizontal_flip"] == 1.0)
        assert drawn.upside_down == ("vertical_flip" in options)
        states.append(float(torch.rand(1)))
    assert states == [states[0]] * len(OPTIONS)


def test_scales_are_drawn_from_their_range_and_windows_reach_every_edge() -> None:
    drawn = []
    for image in range(300):
        seed_sample(1, epoch=0, image=image, repeat=0)
        drawn.append(draw(SIZE, sides=None, max_side=1, scale=(0.5, 2.0), crop=25, horizontal_flip=0.5))
    factors = np.array([how.size[1] / SIZE[1] for how in drawn])
    assert 0.5 <= factors.min() < 0.55
    assert 1.85 < factors.max() <= 2.0
    assert 0.45 < (factors < 1).mean() < 0.55  # as often smaller as larger
    edges = set()
    for how in drawn:
        height, width = how.size
        assert height == pytest.approx(width * SIZE[0] / SIZE[1], abs=1)
        if how.window is None:
            assert max(how.size) <= 25
            assert how.result == how.size
            continue
        top, left, rows, columns = how.window
        assert how.result == (rows, columns) == (min(height, 25), min(width, 25))
        assert top >= 0
        assert left >= 0
        assert top + rows <= height
        assert left + columns <= width
        edges |= {name for name, reached in (("left", left == 0), ("right", left + columns == width)) if reached}
        edges |= {name for name, reached in (("top", top == 0), ("bottom", top + rows == height)) if reached}
    assert edges == {"left", "right", "top", "bottom"}


WINDOWS = [None, (2, 3, 20, 30), (0, 0, 11, 9), (5, 2, 10, 9)]  # of an image of 30×44 or more, but the last two


@pytest.mark.parametrize("upside_down", [False, True])
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("resized", [SIZE, (60, 88), (45, 44), (15, 11)])
def test_images_boxes_masks_and_maps_stay_together(
    resized: tuple[int, int], window: tuple[int, int, int, int] | None, flipped: bool, upside_down: bool
) -> None:
    """A bright rectangle: after the transform, pixels, box, mask and class still tell the same place."""
    if window is not None and (window[0] + window[2] > resized[0] or window[1] + window[3] > resized[1]):
        pytest.skip("the window is larger than the image")
    how = Augmentation(resized, flipped, upside_down, window)
    box = np.array([[4, 6, 20, 24]], np.float32)  # multiples of 4 and 6 stay whole pixels in most sizes
    mask = np.zeros((1, *SIZE), np.uint8)
    mask[:, 6:24, 4:20] = 1
    pixels = np.repeat(mask[0, :, :, None] * 255, 3, axis=2)
    new_box = transformed_boxes(box, SIZE, how)
    new_mask = transformed_map(mask, how)
    new_map = transformed_map(mask[0].astype(np.int64) * 7, how)
    image = image_to_tensor(Image.fromarray(pixels), how) / 255
    top, left, rows, columns = window or (0, 0, *resized)
    assert image.shape == (3, rows, columns)
    assert new_mask.shape == (1, rows, columns)
    assert new_box.dtype == torch.float32
    x = (44 - 20 if flipped else 4) * resized[1] / 44 - left
    y = (30 - 24 if upside_down else 6) * resized[0] / 30 - top
    expected = np.array([x, y, x + 16 * resized[1] / 44, y + 18 * resized[0] / 30])
    expected = expected.clip(0, [columns, rows, columns, rows])
    np.testing.assert_allclose(new_box[0].numpy(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(new_map, new_mask[0].long() * 7)
    if (expected[2:] > expected[:2]).all():  # otherwise it lies outside
        np.testing.assert_allclose(mask_to_box(new_mask[0].numpy() == 1), expected, atol=0.5)
        assert float(image[0][new_mask[0] == 1].mean()) > 0.75  # pixels at its edges are mixed
    if (new_mask == 0).any():
        assert float(image[0][new_mask[0] == 0].mean()) < 0.1


def test_transforms_leave_their_arguments_alone() -> None:
    how = Augmentation(SIZE, True)
    box, mask = np.array([[4, 6, 20, 24]], np.float32), np.eye(30, 44, dtype=np.uint8)
    before = box.copy(), mask.copy()
    transformed_boxes(box, SIZE, how)[:] = 0
    transformed_map(mask, Augmentation(SIZE, False)).numpy()
    np.testing.assert_array_equal(box, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_pixels_are_exact_without_resizing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    result = image_to_tensor(Image.fromarray(pixels), Augmentation(SIZE, False))
    np.testing.assert_array_equal(result.permute(1, 2, 0).numpy(), pixels)
    mirrored = image_to_tensor(Image.fromarray(pixels), Augmentation(SIZE, True))
    assert torch.equal(mirrored, result.flip(-1))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1)])
def test_images_one_pixel_wide_are_mirrored_too(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    how = Augmentation(size, flipped=True, upside_down=True)
    image = image_to_tensor(Image.fromarray(pixels), how) / 255
    np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), pixels[::-1, ::-1] / 255, atol=1e-6)
    np.testing.assert_array_equal(transformed_map(pixels[..., 0], how).numpy(), pixels[::-1, ::-1, 0])


def test_masks_made_in_the_new_size_are_mirrored_only() -> None:
    mask = np.random.default_rng(0).integers(0, 2, (3, 60, 88)).astype(np.uint8)
    assert torch.equal(transformed_map(mask, Augmentation((60, 88), True)), torch.from_numpy(mask).flip(-1))


def test_images_without_objects_are_transformed_too() -> None:
    how = Augmentation((60, 88), True)
    assert transformed_boxes(np.zeros((0, 4), np.float32), SIZE, how).shape == (0, 4)
    assert transformed_map(np.zeros((0, *SIZE), np.uint8), how).shape == (0, 60, 88)


@pytest.mark.parametrize(
    ("images", "wide_share", "batch_size"), [(103, 0.5, 8), (64, 0.2, 16), (7, 0.5, 8), (24, 1.0, 4)]
)
def test_batches_hold_images_of_like_orientation(images: int, wide_share: float, batch_size: int) -> None:
    generator = np.random.default_rng(images)
    wide = generator.random(images) < wide_share
    sizes = np.where(wide[:, None], np.array([[30, 40]]), np.array([[40, 30]])).astype(np.int32)
    order = epoch_order(3, epoch=2, samples=images)
    result = grouped_by_orientation(order, sizes, batch_size=batch_size)
    assert sorted(result.tolist()) == list(range(images))
    batches = [result[first : first + batch_size] for first in range(0, images, batch_size)]
    assert sum(len(set(wide[batch].tolist())) == 2 for batch in batches) <= 1
    for group in (True, False):  # within a group, images stay in the order drawn
        drawn = [image for image in order.tolist() if wide[image] == group]
        assert [image for image in result.tolist() if wide[image] == group] == drawn
    again = grouped_by_orientation(order.copy(), sizes, batch_size=batch_size)
    np.testing.assert_array_equal(result, again)
    other = grouped_by_orientation(epoch_order(3, epoch=3, samples=images), sizes, batch_size=batch_size)
    assert result.tolist() != other.tolist()


def test_square_images_go_with_upright_ones() -> None:
    sizes = np.array([[30, 30], [30, 40], [40, 30], [30, 40]], np.int32)
    assert grouped_by_orientation(np.array([0, 1, 2, 3]), sizes, batch_size=2).tolist() == [0, 2, 1, 3]
