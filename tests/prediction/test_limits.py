from __future__ import annotations

import pytest
import torch

from detection.cases import DETECTORS
from vision_longformer.detection.config import MOST_DETECTIONS
from vision_longformer.prediction.limits import limit_for, limited


def test_a_larger_image_has_room_for_more_objects() -> None:
    assert limit_for(100, (700, 520)) == 100
    assert limit_for(100, (1000, 1001)) == 101
    assert limit_for(100, (20_000, 20_000)) == 40_000
    assert limit_for(100, (10**6, 10**6)) == MOST_DETECTIONS


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_detector_is_as_before_afterwards(kind: str) -> None:
    model = DETECTORS[kind](torch.float32)
    before = model.config
    with limited(model, (2000, 3000)):
        assert model.config.detections == 6 * before.detections
        assert model.config != before
    assert model.config is before
    limit = model.detections_per_img if kind == "retinanet" else model.roi_heads.limit
    assert limit == before.detections
