from __future__ import annotations

import numpy as np

from vision_longformer.masks.box_masks import BoxMask, unite
from vision_longformer.masks.rle import Mask, mask_to_rle, rle_to_mask

SIZE = (23, 31)


def painted(seed: int, top: int, left: int, height: int, width: int) -> tuple[BoxMask, Mask]:
    """Return a mask of noise somewhere in an image, and the same as large as the image."""
    crop = np.random.default_rng(seed).random((height, width)) < 0.5
    whole = np.zeros(SIZE, bool)
    whole[top : top + height, left : left + width] = crop
    return BoxMask(mask_to_rle(crop), (top, left)), whole


def test_masks_are_cut_out_and_placed() -> None:
    mask, whole = painted(0, 5, 7, 11, 13)
    assert mask.pixels == (7, 5, 20, 16)
    assert (rle_to_mask(mask.of_image(SIZE)) == whole).all()
    for x1, y1, x2, y2 in ((0, 0, 31, 23), (9, 8, 12, 15), (0, 10, 8, 23), (25, 18, 31, 23)):
        assert (mask.within((x1, y1, x2, y2)) == whole[y1:y2, x1:x2]).all()


def test_united_masks_have_all_pixels_of_each() -> None:
    pairs = [painted(1, 5, 7, 11, 13), painted(2, 2, 12, 9, 18), painted(3, 12, 1, 10, 9)]
    united = unite([mask for mask, _ in pairs])
    assert united.pixels == (1, 2, 30, 22)
    assert (rle_to_mask(united.of_image(SIZE)) == np.logical_or.reduce([whole for _, whole in pairs])).all()


def test_probabilities_are_stretched_over_their_box() -> None:
    mask = BoxMask.from_probabilities(np.array([[1.0, 0], [0, 1]]), (4, 6, 12, 10))
    assert mask.pixels == (4, 6, 12, 10)
    shown = mask.within((4, 6, 12, 10))
    assert shown[:2, 1:3].all()  # at the corners they fade into the zeros around the box
    assert shown[2:, 5:7].all()
    assert not shown[:1, 5:].any()
