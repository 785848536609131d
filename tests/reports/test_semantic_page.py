from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from reports.dense_cases import HEIGHT, WIDTH, A, B, C, evaluated, make, step, write
from reports.pages import HOSTILE
from vision_longformer.datasets.semantic import coco_classes, coco_label, read_semantic
from vision_longformer.evaluation.examples import evenly
from vision_longformer.evaluation.iou import confusion_matrix, scores
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.evaluation.segmentation import SemanticResult, evaluate_semantic, worst_of


def segmented(
    split: Any, classes: tuple[str, ...], truths: list[np.ndarray], taken: list[np.ndarray]
) -> SemanticResult:
    """The result of predictions."""
    pairs = zip(taken, truths, strict=True)
    counts = [
        confusion_matrix(torch.tensor(p), torch.tensor(t), num_classes=len(classes), ignore_index=255) for p, t in pairs
    ]
    accuracy = torch.stack([own.diagonal().sum() / own.sum() for own in counts]).double()
    even = evenly(len(taken))
    kept = [*even, *worst_of([image for image in range(len(taken)) if image not in even], accuracy)]
    labels = {image: taken[image] for image in kept}
    return SemanticResult(split, classes, torch.stack(counts).sum(dim=0), labels, accuracy)


def index_images(folder: Path, labels: list[np.ndarray], classes: tuple[str, ...]) -> Any:
    for part in ("val", "val_labels"):
        (folder / part).mkdir()
    (folder / "classes.txt").write_text("\n".join(classes))
    for number, label in enumerate(labels):
        noise = np.random.default_rng(number).integers(0, 255, (*label.shape, 3), np.uint8)
        Image.fromarray(noise).save(folder / "val" / f"{number:02}.jpg")
        Image.fromarray(label.astype(np.uint8)).save(folder / "val_labels" / f"{number:02}.png")
    return read_semantic(folder, "val")


def test_the_numbers_of_pixels_are_those_of_the_result(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0), (B, 1)], [(C, 0)]])
    truths = [coco_label(split, image) for image in range(2)]
    taken = [np.where(truth == 2, 1, truth) for truth in truths]
    result = segmented(split, coco_classes(split), truths, taken)
    metrics = [step(1, epoch=0.5), evaluated(2, epoch=2, miou=0.4, pixel_accuracy=0.7, iou_cat=None)]
    page = write(tmp_path, result, metrics=metrics)
    measured = scores(result.confusion)
    assert page.tiles["mIoU"][0] == f"{measured.miou:.3f}"
    assert page.tiles["Pixel accuracy"][0] == f"{100 * measured.pixel_accuracy:.1f}%"
    listed = page.section("Classes").rows()
    assert [row[0] for row in listed] == ["dog", "cat", "background"]
    assert listed[0][1:] == ["0.000", "", "0.0%", "–", "6.2%", "cat (100.0%)"]
    assert listed[1][1] == f"{measured.class_iou[1]:.3f}"
    assert "1 class without a pixel left out." in page.text
    assert "mean over 3 classes" in page.text
    assert "dog taken for cat: 600 of 600" in page.text
    assert page.count("svg", "small") == 4
    assert len(page.images) == 2 * 4
    assert "87.5% of the labelled pixels right" in page.text
    page.assert_self_contained()


def test_the_worst_images_are_those_with_the_lowest_accuracy(tmp_path: Path) -> None:
    truths = [np.zeros((HEIGHT, WIDTH), np.int64) for _ in range(20)]
    taken = [truth.copy() for truth in truths]
    for image, wrong in ((1, 3), (3, 9), (4, 1), (6, 5), (9, 7), (10, 2)):
        taken[image][:wrong] = 1
    result = segmented(index_images(tmp_path, truths, ("a", "b")), ("a", "b"), truths, taken)
    spread, worst = result.examples()
    assert worst == [3, 9, 6, 1]
    names = [image["alt"] for image in write(tmp_path, result).images[::4]]
    assert names == [f"image of {image:02}.jpg" for image in [*spread, *worst]]


class AllOfTheFirst(nn.Module):
    """A model that takes every pixel for the first of two classes."""

    def logits(self, images: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        return torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(len(images), 2, *images.shape[2:])


@pytest.mark.parametrize("batch_size", [1, 5])
def test_an_evaluation_keeps_the_predictions_that_its_page_shows(tmp_path: Path, batch_size: int) -> None:
    truths = [np.zeros((6, 10), np.int64) for _ in range(20)]
    for image, wrong in ((1, 3), (3, 9), (4, 1), (6, 5), (9, 7), (10, 2)):
        truths[image][0, :wrong] = 1
    split = index_images(tmp_path, truths, ("a", "b"))
    preprocessing = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "side": None, "max_side": 99}
    how = EvaluationSetup(batch_size=batch_size, workers=0, device=torch.device("cpu"))
    result = evaluate_semantic(AllOfTheFirst(), split, ("a", "b"), preprocessing, how, max_pixels=99)
    assert result is not None
    assert result.examples() == (evenly(20), [3, 9, 6, 1])
    assert sorted(result.labels) == sorted([*evenly(20), 3, 9, 6, 1])


def test_pixels_without_labels_are_no_errors(tmp_path: Path) -> None:
    truth = np.full((HEIGHT, WIDTH), 255)
    split = index_images(tmp_path, [truth], HOSTILE)
    page = write(tmp_path, segmented(split, HOSTILE, [truth], [np.ones((HEIGHT, WIDTH), np.int64)]))
    assert page.tiles["mIoU"][0] == "–"
    assert "No pixel is labelled in the split" in page.text
    assert "no pixel is labelled" in page.text
    assert HOSTILE[1] in page.text
    page.assert_self_contained()


def test_the_page_of_noise_in_many_classes_is_bounded(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    classes = tuple(f"class {number}" for number in range(80))
    truths = [generator.integers(0, 80, (400, 300)) for _ in range(12)]
    taken = [generator.integers(0, 80, (400, 300)) for _ in range(12)]
    split = index_images(tmp_path, truths, classes)
    result = segmented(split, classes, truths, taken)
    (tmp_path / "val" / "00.jpg").unlink()
    (tmp_path / "val_labels" / "11.png").unlink()
    page = write(tmp_path, result)
    assert len(page.source) < 5_000_000
    assert len(page.images) == 4 * 10
    assert "2 images could not be read any more." in page.text
    assert "Of 80 classes the 24 in the largest confusions are shown" in page.text
    assert "and 40 more" in page.text
