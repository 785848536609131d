from __future__ import annotations

import math

import pytest
import torch

from vision_longformer.evaluation.iou import confusion_matrix, scores


def test_pixels_are_counted_by_true_and_predicted_class() -> None:
    target = torch.tensor([[0, 0, 1, 255], [2, 2, 1, 255]])
    predicted = torch.tensor([[0, 1, 1, 2], [2, 0, 1, 0]])
    result = confusion_matrix(predicted, target, num_classes=4, ignore_index=255)
    assert result.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


def test_random_maps_agree_with_counting_one_class_at_a_time() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 5, (2, 13, 17), generator=generator)
    predicted = torch.where(torch.rand(target.shape, generator=generator) < 0.6, target, 3)
    target[0, :3] = 9
    matrix = confusion_matrix(predicted, target, num_classes=5, ignore_index=9)
    result = scores(matrix)
    counted = target != 9
    expected = []
    for label in range(5):
        is_label, called = (target == label) & counted, (predicted == label) & counted
        expected.append(float((is_label & called).sum() / (is_label | called).sum()))
    assert result.class_iou == pytest.approx(expected)
    assert result.miou == pytest.approx(sum(expected) / 5)
    assert result.pixel_accuracy == pytest.approx(float((target == predicted)[counted].double().mean()))
    assert result.foreground_iou is None


def test_matrices_of_parts_add_up_to_that_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(1)
    target, predicted = (torch.randint(0, 3, (4, 5, 7), generator=generator) for _ in range(2))
    parts = [confusion_matrix(predicted[i], target[i], num_classes=3, ignore_index=None) for i in range(4)]
    assert torch.equal(sum(parts), confusion_matrix(predicted, target, num_classes=3, ignore_index=None))  # type: ignore[arg-type]


def test_classes_that_occur_nowhere_are_left_out_of_the_mean() -> None:
    target = torch.tensor([0, 0, 1, 1])
    predicted = torch.tensor([0, 0, 1, 2])
    result = scores(confusion_matrix(predicted, target, num_classes=4, ignore_index=None))
    assert result.class_iou[:3] == (1, 0.5, 0)  # class 2 occurs in predictions alone, and counts
    assert math.isnan(result.class_iou[3])
    assert result.miou == pytest.approx(0.5)
    assert result.pixel_accuracy == 0.75


def test_one_class_over_a_background_has_an_iou_of_its_own() -> None:
    target = torch.tensor([0, 0, 0, 1, 1, 1])
    predicted = torch.tensor([0, 0, 1, 1, 1, 0])
    result = scores(confusion_matrix(predicted, target, num_classes=2, ignore_index=None))
    assert result.foreground_iou == result.class_iou[1] == 0.5
    nothing = scores(confusion_matrix(target * 0, target * 0, num_classes=2, ignore_index=None))
    assert nothing.foreground_iou == 0
    assert nothing.miou == 1


def test_without_a_labelled_pixel_the_measures_are_0() -> None:
    target = torch.full((3, 4), 255)
    matrix = confusion_matrix(torch.zeros(3, 4, dtype=torch.int64), target, num_classes=3, ignore_index=255)
    result = scores(matrix)
    assert (result.miou, result.pixel_accuracy) == (0, 0)
    assert all(math.isnan(value) for value in result.class_iou)


def test_maps_that_do_not_fit_are_refused() -> None:
    one, two = torch.zeros(3, 4, dtype=torch.int64), torch.zeros(4, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"predicted is \(3, 4\) and target \(4, 3\)"):
        confusion_matrix(one, two, num_classes=2, ignore_index=None)
    with pytest.raises(ValueError, match="target has classes from 3 to 3; there are 2, from 0 on"):
        confusion_matrix(one, one + 3, num_classes=2, ignore_index=None)
    with pytest.raises(ValueError, match="predicted has classes from -1 to -1"):
        confusion_matrix(one - 1, one, num_classes=2, ignore_index=None)
