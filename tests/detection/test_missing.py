from __future__ import annotations

import numpy as np

from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.detection.missing import where_pixels_are, where_rows_are
from vision_longformer.images.arrays import ArrayReader
from vision_longformer.masks.rle import mask_to_rle


def test_no_object_is_found_where_an_image_has_no_pixels() -> None:
    """The right half of the image is missing."""
    valid = np.zeros((20, 30), bool)
    valid[:, :15] = True
    boxes = np.array([[2, 3, 9, 9], [16, 1, 29, 8], [11.5, 10, 16.5, 18], [13.5, 10, 28.5, 18]])
    objects = FoundObjects(boxes, np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 1, 2, 3]))
    assert where_pixels_are(objects, valid).labels.tolist() == [0, 2]
    assert where_pixels_are(objects, None) is objects

    masks = [np.zeros((20, 30), bool) for _ in boxes]
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int).tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    masks[3][:, 15:] = False  # what its box has beyond is none of it
    with_masks = FoundObjects(boxes, objects.scores, objects.labels, [mask_to_rle(mask) for mask in masks])
    kept = where_pixels_are(with_masks, valid)
    assert kept.labels.tolist() == [0, 2, 3]
    assert kept.scores.tolist() == [0.9, 0.7, 0.6]
    assert kept.masks == [mask_to_rle(masks[place]) for place in (0, 2, 3)]


def test_nor_where_an_image_that_is_read_by_rows_has_none() -> None:
    """The same objects as above are kept, wherever they lie among the bands that are read again."""
    generator = np.random.default_rng(0)
    image = generator.random((150, 40, 3), np.float32)
    image[generator.random((150, 40)) < 0.2] = np.nan
    image[50:90, 10:] = np.nan
    corners = generator.uniform(0, (34, 140), (60, 2))
    boxes = np.concatenate([corners, np.minimum(corners + generator.uniform(1, 60, (60, 2)), (40, 150))], axis=1)
    objects = FoundObjects(boxes, np.linspace(1, 0, 60), np.arange(60))
    expected = where_pixels_are(objects, np.asarray(~np.isnan(image).any(axis=2)))
    kept = where_rows_are(objects, ArrayReader(image), 3)
    assert 5 < len(kept.labels) < 55
    np.testing.assert_array_equal(kept.labels, expected.labels)
    np.testing.assert_array_equal(kept.boxes, expected.boxes)
    none = FoundObjects(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    assert where_rows_are(none, ArrayReader(image), 3) is none
