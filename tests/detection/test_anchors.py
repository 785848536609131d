"""Anchors lie where the pyramid's positions do."""

from __future__ import annotations

import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from model_helpers import noise
from vision_longformer.detection.anchors import Anchors, rows_of_image


def test_anchors_stand_at_multiples_of_the_stride_on_an_images_own_map() -> None:
    anchors = Anchors([(32, 40), (64, 80)], (0.5, 1.0, 2.0))
    first = anchors.of_image((20, 30), [4, 8], like=torch.zeros(()))
    second = anchors.of_image((7, 9), [4, 8], like=torch.zeros((), dtype=torch.float64))
    assert [len(boxes) for boxes in first] == [5 * 8 * 6, 3 * 4 * 6]
    assert [len(boxes) for boxes in second] == [2 * 3 * 6, 1 * 2 * 6]
    assert first[0].dtype == torch.float32
    assert second[0].dtype == torch.float64
    boxes = second[1].reshape(1, 2, 3, 2, 4)  # row, column, ratio, size
    centres, sides = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    assert torch.equal(centres[0, :, 0, 0], torch.tensor([[0.0, 0], [8, 0]], dtype=torch.float64))
    wanted = torch.tensor([64.0, 80]).double().expand(3, 2)
    torch.testing.assert_close(sides.prod(dim=-1).sqrt()[0, 0], wanted, rtol=1e-6, atol=0)
    ratios = torch.tensor([0.5, 1, 2]).double()[:, None].expand(3, 2)  # height over width
    torch.testing.assert_close((sides[..., 1] / sides[..., 0])[0, 0], ratios, rtol=1e-6, atol=0)


def test_where_the_stride_divides_the_size_they_are_torchvisions() -> None:
    """Which rounds their corners to whole pixels."""
    sizes, ratios = ((32, 45), (64, 90)), (0.5, 1.0, 2.0)
    mine = torch.cat(Anchors(sizes, ratios).of_image((64, 96), [8, 16], like=torch.zeros(())))
    images = ImageList(torch.zeros(1, 3, 64, 96), [(64, 96)])
    (theirs,) = AnchorGenerator(sizes, (ratios,) * 2)(images, [torch.zeros(1, 1, 8, 12), torch.zeros(1, 1, 4, 6)])
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0.51)


def test_rows_of_a_map_are_in_the_order_of_the_anchors() -> None:
    """Row by row, then column by column, then anchor by anchor; and never in half precision."""
    x = noise(2, 3 * 5, 4, 7)
    rows = rows_of_image(x, 1, (3, 5), width=5)
    assert rows.shape == (3 * 5 * 3, 5)
    for row, column, anchor in ((0, 0, 0), (0, 4, 2), (2, 1, 1)):
        index = (row * 5 + column) * 3 + anchor
        assert torch.equal(rows[index], x[1, anchor * 5 : anchor * 5 + 5, row, column])
    assert rows_of_image(x.bfloat16(), 1, (3, 5), width=5).dtype == torch.float32


def test_some_anchors_of_a_map_are_those_of_the_whole_map() -> None:
    anchors = Anchors([(32, 40), (64, 80)], (0.5, 1.0, 2.0))
    for dtype in (torch.float32, torch.float64):
        like = torch.zeros((), dtype=dtype)
        for number, boxes in enumerate(anchors.of_image((20, 30), [4, 8], like=like)):
            places, stride = torch.tensor([0, 5, 6, 71, len(boxes) - 1]), (4, 8)[number]
            found = anchors.of_places(places, level=number, stride=stride, width=-(-30 // stride), like=like)
            assert found.dtype == dtype
            assert torch.equal(found, boxes[places])
