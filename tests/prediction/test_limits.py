from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from detection.cases import DETECTORS
from vision_longformer.detection.config import MOST_DETECTIONS
from vision_longformer.prediction.limits import DENSE, PIXELS, Limits, limits_of


def trained(gives: str = "objects", **preprocessing: Any) -> Any:
    model = SimpleNamespace(config=SimpleNamespace(detections=100))
    return SimpleNamespace(gives=gives, model=model, preprocessing={"side": None} | preprocessing)


def limits(**preprocessing: Any) -> Limits:
    found = limits_of(trained(**preprocessing))
    assert found is not None
    return found


def test_a_larger_image_has_room_for_more_objects() -> None:
    most = limits().most
    assert most((700, 520)) == 100
    assert most((1000, 1001)) == 101
    assert most((20_000, 20_000)) == 40_000
    assert most((10**6, 10**6)) == MOST_DETECTIONS


def test_small_images_of_training_mean_that_objects_lie_close() -> None:
    """As many as a square of training may have fit on each such square of an image, up to a number that can be had."""
    most = limits(crop=256).most
    assert most((256, 256)) == most((10, 10)) == 100
    assert most((1536, 1536)) == 36 * 100
    assert most((6000, 8000)) == DENSE
    assert most((30_000, 30_000)) == 90_000


@pytest.mark.parametrize(
    ("preprocessing", "pixels"),
    [
        ({}, PIXELS),
        ({"side": 800}, 853_333),
        ({"side": 1000}, PIXELS),
        ({"side": 256}, 87_381),
        ({"crop": 256}, 256**2),
        ({"window": 128, "crop": 256}, 128**2),
    ],
)
def test_limits_are_meant_for_the_images_of_training(preprocessing: dict[str, Any], pixels: int) -> None:
    assert limits(**preprocessing).pixels == pixels


def test_without_objects_there_is_no_limit() -> None:
    assert limits_of(trained("pixels")) is None


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_detector_is_as_before_afterwards(kind: str) -> None:
    model = DETECTORS[kind](torch.float32)
    before = model.config
    grown = Limits(model, before)
    with grown((2000, 3000)):
        assert model.config.detections == 6 * before.detections
        once = model.config
        with grown((2000, 3000)):  # as a forecast within a pass
            assert model.config == once
        assert model.config is once
    assert model.config is before
    limit = model.detections_per_img if kind == "retinanet" else model.roi_heads.limit
    assert limit == before.detections
