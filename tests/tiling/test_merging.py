from __future__ import annotations

from collections.abc import Sequence

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
from vision_longformer.tiling import merging
from vision_longformer.tiling.merging import Parts, merge
from vision_longformer.tiling.tiles import Tile, cut_into_tiles

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


LEFT, RIGHT = Tile(0, 0, 100, 100), Tile(0, 80, 100, 180)


def merged(*found: tuple[int, Sequence[float], int, float]) -> list[list[float]]:
    """Return the boxes made of (tile, box, class, score)."""
    tiles, boxes, labels, scores = zip(*found, strict=True)
    parts = Parts(np.array(boxes, float), np.array(scores), np.array(labels), np.array(tiles), None)
    whole: list[list[float]] = merge(parts, [LEFT, RIGHT], size=(100, 180), nms_threshold=0.5).boxes.tolist()
    return whole


def test_parts_that_agree_are_one_object_if_they_are_of_one_class() -> None:
    one, other = [40, 20, 99, 60], [80.5, 22, 130, 60]
    assert merged((0, one, 0, 0.9), (1, other, 0, 0.8)) == [[40, 20, 130, 60]]
    assert merged((0, one, 0, 0.9), (1, other, 1, 0.8)) == [one, other]


def test_parts_that_do_not_meet_or_are_not_cut_stay_apart() -> None:
    one = [40, 20, 100, 60]
    assert merged((0, one, 0, 0.9), (1, [80, 61, 130, 90], 0, 0.8)) == [one, [80, 61, 130, 90]]
    assert merged((0, one, 0, 0.9), (1, [89, 50, 130, 90], 0, 0.8)) == [one, [89, 50, 130, 90]]


def test_a_part_is_dropped_for_the_whole_even_if_it_is_surer() -> None:
    whole, part = [60, 20, 94, 60], [80, 25, 94, 55]
    assert merged((0, whole, 0, 0.6), (1, part, 0, 0.9)) == [whole]
    assert merged((0, whole, 1, 0.6), (1, part, 0, 0.9)) == [part, whole]


def test_an_unsure_box_does_not_take_a_sure_one_away() -> None:
    doubtful, sure = [10, 5, 95, 95], [80, 25, 94, 55]
    assert merged((0, doubtful, 0, 0.1), (1, sure, 0, 0.9)) == [sure, doubtful]


def test_work_grows_with_the_tiles_not_with_their_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    size, calls = (3000, 2000), 0
    original = merging._intersection

    def counted(boxes: merging.Boxes, other: merging.Boxes) -> merging.Boxes:
        nonlocal calls
        calls += 1
        return original(boxes, other)

    monkeypatch.setattr(merging, "_intersection", counted)
    tiles = cut_into_tiles(size, tile=100, overlap=10)
    corners = np.array([[tile.left + 40, tile.top + 40] for tile in tiles], float)
    numbers = np.arange(len(tiles))
    parts = Parts(np.hstack([corners, corners + 20]), 1 / (1 + numbers), 0 * numbers, numbers, None)
    assert len(merge(parts, tiles, size=size, nms_threshold=0.5).boxes) == len(tiles) > 700
    assert calls < 2 * len(tiles)
