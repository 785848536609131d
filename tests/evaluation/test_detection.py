"""Evaluating a detector on images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from torch import Tensor, nn

from vision_longformer.datasets.coco import read_coco
from vision_longformer.detection.boxes import Detections
from vision_longformer.evaluation.detection import evaluate_detector
from vision_longformer.evaluation.loop import EvaluationSetup

BOXES = ((2.0, 4.0, 12.0, 14.0), (24.0, 4.0, 34.0, 14.0))  # of which the second lies where the image has no pixels


class Finder(nn.Module):
    """Finds the same two objects in every image."""

    def detect(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        scores, labels = torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
        return [Detections(torch.tensor(BOXES), scores, labels) for _ in range(len(images))]


@pytest.mark.parametrize(("nodata", "found"), [(0, 1), (None, 2)])
def test_nothing_is_found_where_an_image_has_no_pixels(tmp_path: Path, nodata: int | None, found: int) -> None:
    """What prediction leaves out there is no false alarm in evaluation."""
    pixels = np.full((20, 40, 3), 9, np.uint8)
    pixels[:, 20:] = 0
    (tmp_path / "images").mkdir()
    tags: Any = [] if nodata is None else [(42113, "s", 0, str(nodata), True)]
    tifffile.imwrite(tmp_path / "images/a.tif", pixels, photometric="rgb", extratags=tags)
    left, top, right, bottom = BOXES[0]
    content = {
        "images": [{"id": 1, "file_name": "a.tif", "height": 20, "width": 40}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [left, top, right - left, bottom - top]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    split = read_coco(tmp_path / "a.json", tmp_path / "images", with_masks=False)
    how = EvaluationSetup(batch_size=1, workers=0, device=torch.device("cpu"))
    as_it_is = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "side": None, "max_side": None}
    result = evaluate_detector(Finder(), split, as_it_is, how, max_pixels=10**6)
    assert result is not None
    assert result.found[0].labels.tolist() == [0] * found
    assert result.metrics()["box_ap"] == pytest.approx(1)
