"""Regions of a pyramid, and masks in boxes."""

from __future__ import annotations

import torch

from model_helpers import noise
from vision_longformer.detection.roi_align import REGIONS_AT_ONCE, RegionPool, masks_in_boxes


def ramp(height: int, width: int, stride: int) -> torch.Tensor:
    """Return a (1, 2, H, W) map that holds the (x, y) in pixels of each position's centre."""
    rows, columns = (torch.arange(0, size, dtype=torch.float64) * stride + stride / 2 for size in (height, width))
    return torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)])[None]


def test_a_region_holds_the_values_at_its_own_pixels() -> None:
    """On a map whose values are coordinates, bin (i, j) of a box is the centre of that part of the box."""
    pool = RegionPool((4, 8, 16), size=5)
    maps = [ramp(128 // stride, 160 // stride, stride) for stride in (4, 8, 16)]
    box = torch.tensor([[24.0, 16, 124, 86]], dtype=torch.float64)
    pooled = pool(maps, [box])
    steps = (torch.arange(5, dtype=torch.float64) + 0.5) / 5
    torch.testing.assert_close(pooled[0, 0], (24 + 100 * steps).expand(5, 5))
    torch.testing.assert_close(pooled[0, 1], (16 + 70 * steps)[:, None].expand(5, 5))


def test_regions_are_taken_from_the_level_of_their_area_and_from_their_image() -> None:
    pool = RegionPool((4, 8, 16, 32), size=3)
    maps = [torch.full((2, 1, 512 // s, 640 // s), float(s)) for s in (4, 8, 16, 32)]
    for x in maps:
        x[1] += 0.5
    sides: list[list[float]] = [[20.0, 111, 113, 225], [223, 449, 500]]
    pooled = pool(maps, [torch.tensor([[0, 0, side, side] for side in own]) for own in sides])
    assert pooled.shape == (7, 1, 3, 3)
    assert pooled[:, 0, 1, 1].tolist() == [4, 4, 8, 16, 8.5, 32.5, 32.5]


def test_no_regions() -> None:
    pooled = RegionPool((4, 8), size=3)([noise(2, 5, 8, 8), noise(2, 5, 4, 4)], [torch.zeros(0, 4)] * 2)
    assert pooled.shape == (0, 5, 3, 3)


def test_masks_in_boxes() -> None:
    """The left half of a box is covered; and there are more boxes than are looked at together."""
    count = 2 * REGIONS_AT_ONCE + 3
    masks = torch.zeros(7, 40, 60, dtype=torch.bool)
    boxes = torch.zeros(count, 4)
    for number in range(7):
        masks[number, 8 : number + 16, 10:20] = True
        boxes[number::7] = torch.tensor([10, 8, 30, number + 16])
    numbers = torch.arange(count) % 7
    shown = masks_in_boxes(masks, numbers, boxes, size=4)
    assert shown.dtype == torch.bool
    assert shown.int().tolist() == [[[1, 1, 0, 0]] * 4] * count
    assert masks_in_boxes(masks[:0], numbers[:0], boxes[:0], size=4).shape == (0, 4, 4)


def test_a_mask_is_seen_at_its_own_pixels() -> None:
    """Not half a pixel off: at one bin for each pixel, a mask comes back as it is."""
    mask = noise(1, 12, 16) > 0
    shown = masks_in_boxes(mask, torch.tensor([0]), torch.tensor([[3.0, 2, 11, 10]]), size=8)
    assert torch.equal(shown, mask[:, 2:10, 3:11])
