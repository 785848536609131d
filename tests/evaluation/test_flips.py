"""Test-time flips: an image and its mirror image give results that mirror each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from prediction.cases import enliven
from training.dense_cases import dense_recipe
from vision_longformer.detection.boxes import Detections
from vision_longformer.evaluation.flips import VIEWS, Flips, check_flips, flipped, flipped_back, united, with_flips
from vision_longformer.training.dense_models import build_dense_model
from vision_longformer.training.tasks import task_class

SIZES = [(24, 40), (32, 28)]
FLIPS: list[Flips] = ["horizontal", "all"]


def images() -> torch.Tensor:
    batch = torch.zeros(2, 3, 32, 40)
    for own, (height, width) in zip(batch, SIZES, strict=True):
        own[:, :height, :width] = torch.randn(3, height, width, generator=torch.Generator().manual_seed(height))
    return batch


def model_of(task: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model: Any = build_dense_model(dense_recipe(task), task_class(task).trained.build, num_classes=3)  # type: ignore[attr-defined]
    enliven(model, task)
    return model.eval().double()


@pytest.mark.parametrize("flips", FLIPS)
@torch.inference_mode()
def test_logits_of_a_mirrored_image_are_mirrored(flips: Flips) -> None:
    model, batch = model_of("semantic_segmentation"), images().double()
    seen = with_flips(model, flips)
    valid = torch.rand(2, 32, 40, generator=torch.Generator().manual_seed(0)) < 0.9
    for options in ({}, {"valid": valid}):
        logits = seen.logits(batch, SIZES, **options)  # type: ignore[operator]
        for axes in VIEWS[flips]:
            own = {name: flipped(there, SIZES, axes) for name, there in options.items()}
            mirrored = seen.logits(flipped(batch, SIZES, axes), SIZES, **own)  # type: ignore[operator]
            torch.testing.assert_close(flipped(mirrored, SIZES, axes), logits, atol=1e-12, rtol=0)
        assert not torch.allclose(logits, model.logits(batch, SIZES, **options))


@pytest.mark.parametrize("task", ["detection", "instance_segmentation"])
@pytest.mark.parametrize("flips", FLIPS)
@torch.inference_mode()
def test_objects_of_a_mirrored_image_are_mirrored(task: str, flips: Flips) -> None:
    model, batch = model_of(task), images().double()
    seen = with_flips(model, flips)
    found = seen.detect(batch, SIZES)  # type: ignore[operator]
    assert min(len(own.boxes) for own in found) > 3
    for axes in VIEWS[flips]:
        mirrored = seen.detect(flipped(batch, SIZES, axes), SIZES)  # type: ignore[operator]
        for own, other, size in zip(found, mirrored, SIZES, strict=True):
            back = flipped_back(other, size, axes)
            torch.testing.assert_close(back.scores, own.scores, atol=1e-9, rtol=0)
            torch.testing.assert_close(back.boxes, own.boxes, atol=1e-6, rtol=0)
            assert torch.equal(back.labels, own.labels)
            if own.masks is not None:
                assert back.masks is not None
                torch.testing.assert_close(back.masks, own.masks, atol=1e-9, rtol=0)


def test_classes_of_a_mirrored_image_are_the_same() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 6, 5)).double()
    batch = torch.randn(4, 3, 8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for flips in FLIPS:
        seen = with_flips(model, flips)
        for axes in VIEWS[flips]:
            torch.testing.assert_close(seen(batch.flip(axes)), seen(batch))
    torch.testing.assert_close(seen(batch), torch.stack([model(batch.flip(axes)) for axes in VIEWS["all"]]).mean(dim=0))


def test_an_object_is_worth_what_all_views_say_of_it() -> None:
    def view(*objects: tuple[list[float], float, int]) -> Detections:
        boxes, scores, labels = zip(*objects, strict=True) if objects else ([], [], [])
        return Detections(
            torch.tensor(boxes).view(-1, 4), torch.tensor(scores), torch.tensor(labels, dtype=torch.int64)
        )

    near, same, far = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 0.0, 30.0, 10.0]
    first = view((near, 0.9, 0), (far, 0.4, 0))
    found = united([first, view((same, 0.7, 0), (near, 0.2, 1))], nms_threshold=0.5, limit=10)
    assert found.boxes.tolist() == [near, far, near]
    assert found.labels.tolist() == [0, 0, 1]
    assert found.scores.tolist() == pytest.approx([0.8, 0.2, 0.1])
    assert united([first, view()], nms_threshold=0.5, limit=1).scores.tolist() == pytest.approx([0.45])
    assert len(united([view(), view()], nms_threshold=0.5, limit=10).boxes) == 0


def test_there_is_no_other_choice() -> None:
    with pytest.raises(ValueError, match="flips=vertical: must be one of none, horizontal, all"):
        check_flips("vertical")
