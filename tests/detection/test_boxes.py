"""Targets are checked before anything is computed from them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vision_longformer.detection import Target
from vision_longformer.detection.boxes import check_targets

SIZE = (20, 30)
GOOD = Target(torch.tensor([[1.0, 2, 10, 9]]), torch.tensor([2]), torch.ones(1, 20, 30, dtype=torch.bool))


def check(target: Target, *, masks: bool = False) -> Target:
    (checked,) = check_targets([target], [SIZE], num_classes=3, masks=masks, like=torch.zeros(()))
    return checked


def test_boxes_end_where_the_image_does() -> None:
    target = check(Target(torch.tensor([[-3.0, -1, 31, 20.5], [0, 0, 30, 20]]), torch.tensor([0, 1])))
    assert target.boxes.tolist() == [[0, 0, 30, 20], [0, 0, 30, 20]]
    assert target.masks is None


def test_an_image_may_hold_nothing() -> None:
    empty = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 20, 30, dtype=torch.bool))
    assert check(empty).boxes.shape == (0, 4)
    assert check(empty, masks=True).masks is not None


def test_targets_take_the_precision_of_the_images_but_no_half() -> None:
    for like, expected in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        (checked,) = check_targets([GOOD], [SIZE], num_classes=3, masks=True, like=torch.zeros((), dtype=like))
        assert checked.boxes.dtype == expected
        assert checked.labels.dtype == torch.int64
    assert check(replace(GOOD, labels=GOOD.labels.int())).labels.dtype == torch.int64


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 9), (5, 9, 8, 9), (9, 5, 8, 9), (30, 5, 31, 9), (5, 20, 9, 25), (1, 1, float("nan"), 9)]
)
def test_boxes_must_cover_something(box: tuple[float, ...]) -> None:
    wrong = Target(torch.tensor([[0.0, 0, 1, 1], list(box)]), torch.tensor([0, 0]))
    with pytest.raises(ValueError, match=r"targets\[0\].boxes\[1\]=\[.*\]: must be x1 < x2, y1 < y2 inside .* 20×30"):
        check(wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": torch.zeros(1, 5)}, r"targets\[0\].boxes: expected shape \(objects, 4\), got \(1, 5\)"),
        ({"labels": torch.tensor([0, 1])}, r"targets\[0\].labels: expected 1 integers, one for each box"),
        ({"labels": torch.tensor([0.0])}, r"targets\[0\].labels: expected 1 integers, .* got torch.float32"),
        ({"labels": torch.tensor([3])}, r"targets\[0\].labels\[0\]=3: must be a class number from 0 to 2"),
        ({"labels": torch.tensor([-1])}, r"targets\[0\].labels\[0\]=-1: must be a class number from 0 to 2"),
        ({"masks": None}, r"targets\[0\].masks: expected one for each box, shape \(1, 20, 30\), got none"),
        ({"masks": torch.ones(1, 30, 20)}, r"targets\[0\].masks: .* got shape \(1, 30, 20\)"),
    ],
)
def test_wrong_targets_are_named(change: dict[str, Tensor | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(replace(GOOD, **change), masks=True)  # type: ignore[arg-type]


def test_every_image_needs_targets() -> None:
    with pytest.raises(ValueError, match=r"targets: expected 2, one for each image, got 1"):
        check_targets([GOOD], [SIZE, SIZE], num_classes=3, masks=False, like=torch.zeros(()))
