from __future__ import annotations

import numpy as np

from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.masks.rle import mask_to_rle
from vision_longformer.prediction.dense import where_pixels_are


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
