"""Forms that COCO's files come in from other programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision_longformer.datasets.coco import read_coco
from vision_longformer.masks.rle import segmentation_to_mask

mask_api = pytest.importorskip("pycocotools.mask")


def test_a_mark_of_byte_order_gaps_in_ids_and_compressed_run_lengths_are_taken(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), np.uint8, order="F")
    mask[3:9, 50:57] = 1
    compressed = mask_api.encode(mask)
    compressed["counts"] = compressed["counts"].decode()
    entry = {"id": 1, "image_id": 0, "category_id": 7, "bbox": [50, 3, 7, 6], "segmentation": compressed}
    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg", "width": 60, "height": 40} for number in range(2)],
        "categories": [{"id": 1, "name": "a"}, {"id": 7, "name": "b"}],
        "annotations": [entry],
    }
    for number in range(2):
        Image.new("RGB", (60, 40)).save(tmp_path / f"{number}.jpg")
    (tmp_path / "t.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    split = read_coco(tmp_path / "t.json", tmp_path, with_masks=True)
    assert len(split) == 2
    assert split.classes == ("a", "b")
    assert split.labels.tolist() == [1]
    assert split.segmentations is not None
    np.testing.assert_array_equal(segmentation_to_mask(split.segmentations, 0, (40, 60)), mask.astype(bool))
