from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.masks.rle import mask_to_rle
from vision_longformer.prediction.colours import BLACK, WHITE, class_colour, text_colour
from vision_longformer.prediction.draw_objects import draw_objects, select

SIZE = (200, 300)


def objects(boxes: list[list[float]], *, masks: bool = False) -> FoundObjects:
    """Return objects of classes 0, 1, 2, ..., the first the best."""
    shown = None
    if masks:
        shown = []
        for x1, y1, x2, y2 in np.array(boxes, int):
            mask = np.zeros(SIZE, bool)
            mask[y1:y2, x1:x2] = True
            shown.append(mask_to_rle(mask))
    count = len(boxes)
    return FoundObjects(np.array(boxes, float).reshape(-1, 4), 0.9 - np.arange(count) / 10, np.arange(count), shown)


def changed(
    found: FoundObjects, ground: int, *, labels: bool = True
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Return where a plain image changes."""
    plain = Image.new("RGB", SIZE[::-1], (ground,) * 3)
    drawn = np.array(draw_objects(plain, found, classes=["cat", "dog", "bird"], labels=labels))
    return np.asarray((drawn != ground).any(axis=2))


@pytest.mark.parametrize("ground", [0, 40, 128, 215, 255])
def test_frames_show_on_every_ground(ground: int) -> None:
    found = objects([[50, 60, 150, 160], [200, 20, 280, 90]])
    seen = changed(found, ground, labels=False)
    assert seen[60, 50:150].all()
    assert seen[60:160, 149].all()
    assert seen[20:90, 200].all()
    assert not seen[70:150, 60:140].any()


@pytest.mark.parametrize("box", [[0, 0, 60, 40], [250, 0, 300, 50], [0, 150, 40, 200], [0, 0, 300, 200]])
def test_labels_stay_inside_the_image(box: list[float]) -> None:
    text = changed(objects([box]), 128) & ~changed(objects([box]), 128, labels=False)
    rows, columns = np.nonzero(text)
    assert 8 <= rows.max() - rows.min() <= 25
    assert 30 <= columns.max() - columns.min() <= 80


def test_the_best_label_stays_where_two_would_meet() -> None:
    one, both = objects([[100, 100, 160, 110]]), objects([[100, 100, 160, 110]] * 6)
    drawn = [np.array(draw_objects(Image.new("RGB", SIZE[::-1]), found)) for found in (one, both)]
    label_rows = slice(78, 96)
    assert (drawn[0][label_rows] == drawn[1][label_rows]).all()


def test_masks_tint_what_they_cover() -> None:
    seen = changed(objects([[50, 60, 150, 160]], masks=True), 128, labels=False)
    assert seen[60:160, 50:150].all()
    assert seen.sum() == 100 * 100


def test_masks_of_another_size_are_named() -> None:
    with pytest.raises(ValueError, match=r"masks: one has the size 200×300 \(height×width\), and the image 50×60"):
        draw_objects(Image.new("RGB", (60, 50)), objects([[0, 0, 9, 9]], masks=True))


def test_the_image_stays_as_it_is_and_nothing_may_be_found() -> None:
    image = Image.new("RGB", (60, 50), (1, 2, 3))
    draw_objects(image, objects([[5, 5, 30, 30]]))
    assert image.getcolors() == [(3000, (1, 2, 3))]
    assert draw_objects(image, objects([])).getcolors() == [(3000, (1, 2, 3))]


def test_selection_filters_and_sorts() -> None:
    found = FoundObjects(np.arange(16.0).reshape(4, 4), np.array([0.2, 0.9, 0.5, 0.7]), np.array([0, 1, 0, 1]))
    assert select(found).scores.tolist() == [0.9, 0.7, 0.5, 0.2]
    assert select(found, min_score=0.5, classes={0}).boxes.tolist() == [[8, 9, 10, 11]]
    assert select(found, most=2).labels.tolist() == [1, 1]


def test_colours_differ_and_text_is_legible_on_them() -> None:
    colours = [class_colour(number) for number in range(40)]
    assert len(set(colours)) == 40
    for one, other in itertools.combinations(colours[:7], 2):
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) > 40
    assert text_colour((240, 228, 66)) == BLACK
    assert text_colour((0, 60, 120)) == WHITE


def test_small_objects_are_outlined_without_labels() -> None:
    boxes = [[x, y, x + 12.0, y + 12.0] for x in range(5, 280, 20) for y in range(5, 180, 20)]
    found = FoundObjects(
        np.array(boxes), np.linspace(0.9, 0.1, len(boxes)), np.zeros(len(boxes), int), objects(boxes, masks=True).masks
    )
    plain = Image.new("RGB", SIZE[::-1], (128,) * 3)
    seen = (np.array(draw_objects(plain, found, classes=["cat"])) != 128).any(axis=2)
    assert seen.sum() == len(boxes) * 44  # their edges
    for x1, y1, x2, y2 in np.array(boxes, int):
        assert seen[y1, x1:x2].all()
        assert not seen[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].any()


def test_objects_are_drawn_on_a_smaller_picture() -> None:
    found = objects([[50, 60, 150, 160]], masks=True)
    drawn = np.array(draw_objects(Image.new("RGB", (150, 100)), found, labels=False, size=SIZE))
    rows, columns = np.nonzero(drawn.any(axis=2))
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (30, 80, 25, 75)


def test_labels_hide_no_small_object() -> None:
    alone = changed(objects([[100, 100, 140, 140]]), 128)[80:99, 100:150]
    assert alone.any()
    beside = objects([[100, 100, 140, 140], [102, 86, 112, 96]])  # where the label of the first would be
    seen = np.array(draw_objects(Image.new("RGB", SIZE[::-1], (128,) * 3), beside, classes=["cat", "dog"], labels=True))
    assert (seen[88:94, 104:110] == 128).all()
