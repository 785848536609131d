"""The best detections of a level do not depend on how many parts it comes in, ties included."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detection.cases import retinanet
from model_helpers import noise
from vision_longformer.detection.boxes import Detections
from vision_longformer.detection.candidates import Candidates, choose, merge

ANCHORS, CLASSES = 301, 3


def level(kind: str) -> tuple[Tensor, Tensor]:
    """Return (anchors, classes) logits and (anchors, 4) offsets that tell anchors apart."""
    logits = noise(ANCHORS, CLASSES, seed=1)
    if kind == "few values":
        logits = logits.round()
    if kind == "all equal":
        logits = torch.zeros_like(logits)
    return logits, torch.arange(ANCHORS * 4.0, dtype=torch.float64).view(ANCHORS, 4)


@pytest.mark.parametrize("kind", ["distinct", "few values", "all equal"])
@pytest.mark.parametrize("limit", [1, 7, 200, 10_000])
@pytest.mark.parametrize("parts", [(301,), (1, 300), (100, 0, 101, 100), (3,) * 100 + (1,)])
def test_parts_give_what_the_whole_gives(kind: str, limit: int, parts: tuple[int, ...]) -> None:
    logits, offsets = level(kind)
    threshold = 0.3
    flat = logits.flatten().tolist()
    passing = [place for place, logit in enumerate(flat) if 1 / (1 + math.exp(-logit)) > threshold]
    places = sorted(passing, key=lambda place: (-flat[place], place))[:limit]

    found: Candidates | None = None
    first = 0
    for count in parts:
        rows = slice(first, first + count)
        part = choose(logits[rows], offsets[rows], first=first * CLASSES, threshold=threshold, limit=limit)
        found = part if found is None else merge([found, part], limit)
        first += count
    assert found is not None
    assert found.places.tolist() == places
    assert found.logits.tolist() == [flat[place] for place in places]
    assert found.offsets.tolist() == offsets[[place // CLASSES for place in places]].tolist()


def test_nothing_passes() -> None:
    logits, offsets = level("distinct")
    found = choose(logits, offsets, threshold=1.0, limit=5)
    assert found.logits.shape == found.places.shape == (0,)
    assert found.offsets.shape == (0, 4)


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5, 1.0])
def test_candidates_pass_the_threshold(threshold: float) -> None:
    logits, offsets = torch.linspace(-9, 9, 99, dtype=torch.float64).view(33, 3), torch.zeros(33, 4)
    found = choose(logits, offsets, threshold=threshold, limit=1000)
    assert len(found.places) == (logits.sigmoid() > threshold).sum()


def test_scores_that_are_no_numbers_are_no_candidates() -> None:
    logits, offsets = level("distinct")
    logits[:5] = torch.nan
    assert choose(logits, offsets, threshold=0.0, limit=10_000).places.min() == 5 * CLASSES


def test_the_choice_is_torchvisions_where_scores_differ() -> None:
    model = retinanet(candidates=40, detections=1000)
    images, size = noise(1, 3, 101, 130), (101, 130)
    with torch.no_grad():
        (levels,) = model._predict(images, (size,))
    outputs = {
        "cls_logits": [logits[None] for logits, _, _ in levels],
        "bbox_regression": [offsets[None] for _, offsets, _ in levels],
    }
    (expected,) = model.postprocess_detections(outputs, [[anchors for _, _, anchors in levels]], [size])
    inside = (expected["boxes"][:, 2:] > expected["boxes"][:, :2]).all(dim=1)
    found: Detections = model.detect(images)[0]
    assert len(found.boxes) == inside.sum() > 30
    for name in ("boxes", "scores", "labels"):
        torch.testing.assert_close(getattr(found, name), expected[name][inside], rtol=1e-14, atol=0)
