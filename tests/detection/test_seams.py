from __future__ import annotations

import numpy as np
import pytest

from detection.scenes import (
    better_in_part,
    blank,
    boxes_of,
    disc,
    discs,
    find,
    mosaic,
    paint,
    painted_boxes,
    rectangle,
    same_score,
)

SIZE = (203, 267)
TILE, OVERLAP = 96, 24
KINDS = pytest.mark.parametrize(
    ("masks", "score"), [(False, better_in_part), (False, same_score), (True, better_in_part)]
)


@KINDS
@pytest.mark.parametrize("shape", ["rectangle", "disc"])
def test_small_objects_at_every_place_are_found_once(shape: str, masks: bool, score: object) -> None:
    pitch = 31
    for shift in range(0, pitch, 10):
        picture, number = blank(*SIZE), 0
        for y in range(-shift, SIZE[0], pitch):
            for x in range(-(shift * 7 % pitch), SIZE[1], pitch):
                number += 1
                if shape == "disc":
                    mask = disc(picture, x + 12, y + 12, 12)
                else:
                    mask = rectangle(picture, max(x, 0), max(y, 0), max(x + OVERLAP, 0), max(y + 20, 0))
                paint(picture, number, number % 2, mask)
        found = find(picture, tile=TILE, overlap=OVERLAP, masks=masks, score=score)
        assert boxes_of(found) == painted_boxes(picture)


@KINDS
@pytest.mark.parametrize("overlap", [4, 24, 60])
def test_touching_objects_of_all_sizes_are_those_of_the_whole_image(overlap: int, masks: bool, score: object) -> None:
    for seed in range(3):
        picture = mosaic(SIZE, np.random.default_rng(seed), smallest=9, largest=(40, 150, 267)[seed % 3])
        found = find(picture, tile=TILE, overlap=overlap, masks=masks, score=score)
        assert boxes_of(found) == painted_boxes(picture), seed


@KINDS
def test_discs_of_all_sizes_are_those_of_the_whole_image(masks: bool, score: object) -> None:
    for seed in range(3):
        generator = np.random.default_rng(seed)
        picture = discs(SIZE, generator, radii=(90, 50, 50, *[30] * 4, *[15] * 10, *[7] * 30))
        found = find(picture, tile=TILE, overlap=OVERLAP, masks=masks, score=score)
        assert boxes_of(found) == painted_boxes(picture), seed
