from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from reports.pages import HOSTILE, Page
from vision_longformer.datasets.coco import CocoSplit, read_coco
from vision_longformer.datasets.options import DenseOptions, InputOptions
from vision_longformer.datasets.semantic import coco_classes, coco_label, read_semantic
from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.evaluation.coco import coco_results, evaluate
from vision_longformer.evaluation.detection import DetectionResult
from vision_longformer.evaluation.detection_confusions import NONE, best_threshold, choose_examples, match
from vision_longformer.evaluation.examples import SPREAD_IMAGES, WORST_IMAGES, evenly
from vision_longformer.evaluation.iou import confusion_matrix, scores
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.evaluation.segmentation import SemanticResult, evaluate_semantic, worst_of
from vision_longformer.masks.rle import mask_to_rle
from vision_longformer.reports.training_page import write_training_page
from vision_longformer.training.checkpoints import Progress
from vision_longformer.training.config import ScheduleOptions, TrainConfig
from vision_longformer.training.run_folder import RunFolder

HEIGHT, WIDTH = 60, 80
Box = tuple[float, float, float, float]  # x1, y1, x2, y2
Annotation = tuple[Box, int]  # with its class
Detection = tuple[Box, int, float]  # with its class and score
A, B, C = (5.0, 5.0, 25.0, 35.0), (40.0, 10.0, 70.0, 30.0), (30.0, 40.0, 60.0, 58.0)


def make(
    folder: Path,
    images: list[list[Annotation]],
    *,
    classes: tuple[str, ...] = ("cat", "dog", "hen"),
    crowds: tuple[int, ...] = (),
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> CocoSplit:
    """A split of noise, its objects as boxes; `crowds` are numbers of annotations, from 0."""
    height, width = size
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    content: dict[str, Any] = {
        "categories": [{"id": number + 1, "name": name} for number, name in enumerate(classes)],
        "images": [],
        "annotations": [],
    }
    for number, objects in enumerate(images):
        Image.fromarray(noise).save(folder / f"{number}.png", compress_level=0)
        content["images"].append({"id": number + 1, "file_name": f"{number}.png", "height": height, "width": width})
        for (x1, y1, x2, y2), label in objects:
            place = len(content["annotations"])
            content["annotations"].append(
                {
                    "id": place + 1,
                    "image_id": number + 1,
                    "category_id": label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(place in crowds),
                    "segmentation": mask_to_rle(rectangle((x1, y1, x2, y2), size))
                    if place in crowds
                    else [[x1, y1, x2, y1, x2, y2, x1, y2]],
                }
            )
    (folder / "val.json").write_text(json.dumps(content))
    return read_coco(folder / "val.json", folder, with_masks=True)


def rectangle(box: Box, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    mask = np.zeros(size, bool)
    x1, y1, x2, y2 = map(int, box)
    mask[y1:y2, x1:x2] = True
    return mask


def found_on(split: CocoSplit, detections: list[list[Detection]], *, masks: bool = False) -> DetectionResult:
    """The result of detections, image by image."""
    found = {
        image: FoundObjects(
            np.array([box for box, _, _ in own], float).reshape(-1, 4),
            np.array([score for _, _, score in own], float),
            np.array([label for _, label, _ in own], np.int64),
            [mask_to_rle(rectangle(box)) for box, _, _ in own] if masks else None,
        )
        for image, own in enumerate(detections)
    }
    return DetectionResult(split, found, evaluate(split, coco_results(split, found), masks=masks))


def write(
    folder: Path,
    result: DetectionResult | SemanticResult,
    *,
    metrics: list[dict[str, Any]] | None = None,
    config: TrainConfig | None = None,
) -> Page:
    run = RunFolder(folder)
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in metrics or []))
    run.write_about({"images": 1402, "parameters": 2_823_899, "device": "cpu", "threads": 1})
    progress = Progress(step=20, evaluated_epochs=2, best=0.5, best_epoch=2, seconds=4321.0)
    config = config or TrainConfig(schedule=ScheduleOptions(epochs=2), dense=DenseOptions(sides=(96, 128)))
    config = dataclasses.replace(config, task="semantic_segmentation")
    if isinstance(result, DetectionResult):
        config = dataclasses.replace(config, task="instance_segmentation" if result.scores.mask else "detection")
    write_training_page(run, result, config, progress)
    return Page(run.report)


def step(number: int, *, epoch: float, **parts: float) -> dict[str, Any]:
    line = {"step": number, "epoch": epoch, "loss": 2.0, "learning_rate": 1e-3, "images_per_second": 7.0, "images": 3}
    return line | {f"loss_{name}": value for name, value in parts.items()}


def evaluated(number: int, *, epoch: int, **measures: float | None) -> dict[str, Any]:
    return {"step": number, "epoch": epoch} | {f"val_{name}": value for name, value in measures.items()}


# --- what is a mistake --------------------------------------------------------------------------------------------


def test_detections_take_objects_as_coco_matches_them(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0), (B, 1), (C, 2)]], crowds=(2,))
    shifted = (6.0, 6.0, 26.0, 36.0)
    detections: list[Detection] = [
        (shifted, 0, 0.6),  # A is taken by the surer one behind
        (A, 0, 0.9),
        (B, 0, 0.8),  # of another class
        (C, 2, 0.7),  # in a crowd
        ((0.0, 0.0, 4.0, 4.0), 1, 0.5),
    ]
    matching = match(split, 0, found_on(split, [detections]).found[0])
    assert matching.taken.tolist() == [NONE, 0, NONE, NONE, NONE]
    assert matching.iou.tolist() == [0, 1, 0, 0, 0]
    assert matching.hits(0.5).tolist() == [1]
    assert matching.false_alarms(0.5).tolist() == [0, 2, 4]
    assert matching.false_alarms(0.55).tolist() == [0, 2]
    assert matching.misses(0.5).tolist() == [1]
    assert matching.misses(0.95).tolist() == [0, 1]
    assert matching.f1(0.5) == pytest.approx(2 / 6)


def test_an_image_with_nothing_has_no_f1(tmp_path: Path) -> None:
    matching = match(make(tmp_path, [[]]), 0, None)
    assert math.isnan(matching.f1(0.5))


def test_average_precision_agrees_with_the_hits(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    boxes = [tuple(np.concatenate([c, c + s]).tolist()) for c, s in generator.uniform(5, 35, (40, 2, 2))]
    images: list[list[Annotation]] = [[(box, 0) for box in boxes[n : n + 4]] for n in range(0, 40, 4)]
    near: list[list[Detection]] = [
        [(tuple((np.array(box) + generator.normal(0, 3, 4)).tolist()), 0, float(generator.random())) for box, _ in own]
        for own in images
    ]
    result = found_on(make(tmp_path, images, classes=("cat",)), near)
    matchings = [match(result.split, image, result.found[image]) for image in range(len(images))]
    hits = sum(len(matching.hits(1e-9)) for matching in matchings)
    reached = result.scores.box.recalls[result.scores.box.precisions[0] > 0].max()
    assert reached == pytest.approx(hits / 40, abs=0.01)
    assert 0 < hits < 40


def test_the_threshold_has_the_best_f1(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0), (B, 1)], [(C, 2)]])
    far = (0.0, 50.0, 9.0, 59.0)
    result = found_on(split, [[(A, 0, 0.9), (B, 1, 0.6), (far, 0, 0.3)], [(far, 1, 0.7), (C, 2, 0.3), (far, 2, 0.2)]])
    matchings = [match(split, image, result.found[image]) for image in range(2)]
    assert best_threshold(matchings) == 0.3  # F1 is 3 · 2 / (5 + 3) there, and 2 · 2 / (3 + 3) at 0.6
    assert best_threshold([match(split, 0, None)]) == 0.5


def test_examples_are_spread_and_the_worst_of_the_others(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0)] for _ in range(30)])
    right: list[Detection] = [(A, 0, 0.9)]
    detections = [right] * 30
    detections[1], detections[2] = [(B, 0, 0.9)], [(B, 0, 0.9), (C, 0, 0.9)]
    detections[3], detections[4] = [*right, (B, 0, 0.9)], [*right, (B, 0, 0.2)]
    result = found_on(split, detections)
    matchings = [match(split, image, result.found[image]) for image in range(30)]
    spread, worst = choose_examples(matchings, 0.5)
    assert spread == evenly(30) == [0, *spread[1:-1], 29]
    assert len(spread) == SPREAD_IMAGES
    assert set(np.diff(spread)) <= {4, 5}
    assert worst == [2, 1, 3]  # 4 has no mistake at this threshold


# --- detection --------------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_result(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0), (B, 1)], [(A, 0), (C, 1)], []])
    far = (0.0, 50.0, 9.0, 59.0)
    result = found_on(split, [[(A, 0, 0.9), (B, 1, 0.8)], [(far, 0, 0.95), (C, 1, 0.7)], []])
    page = write(tmp_path, result)
    box = result.scores.box
    for name, value in (("Box AP", box.ap), ("Box AP50", box.ap50), ("Box AP75", box.ap75)):
        assert page.tiles[name][0] == f"{value:.3f}"
    for part in (
        "1,402 images",
        "2.82 M",
        "1 h 12 min",
        "3 images with 4 objects",
        "side of 128 pixels",
        "best epoch 2",
    ):
        assert part in page.text
    assert page.section("Classes").rows() == [
        ["cat", "2", f"{box.class_ap[0]:.3f}", "", f"{box.class_ap50[0]:.3f}", "50.0%", "50.0%"],
        ["dog", "2", "1.000", "", "1.000", "100.0%", "100.0%"],
    ]
    assert "1 class without an object left out." in page.text
    assert page.section("Sizes").rows() == [
        ["small", "below 1,024", "4", f"{box.small:.3f}", "75.0%"],
        ["medium", "1,024 to 9,216", "0", "–", "–"],
        ["large", "from 9,216", "0", "–", "–"],
    ]
    assert "score of 0.70 or more are shown: the threshold with the best F1" in page.text
    assert page.count("svg", "square") == 2
    assert [page.count("g", kind) for kind in ("hit", "truth", "miss", "alarm")] == [3, 3, 1, 1]
    assert "1 of 2 objects found, 1 false alarm; F1\u00a00.50" in page.text
    captions = [caption.text for caption in page.section("Examples").all("figcaption")]
    assert captions[2] == "2.png 0 of 0 objects found, 0 false alarms"


def test_boxes_lie_where_they_are_in_the_image(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0)]])
    page = write(tmp_path, found_on(split, [[(B, 0, 0.9)]]))
    unit = 512 / WIDTH
    (drawing,) = [part.all("svg")[0] for part in page.all("div", "shot")]
    assert drawing["viewbox"] == f"0 0 512.0 {HEIGHT * unit:.1f}"
    for kind, (x1, y1, x2, y2) in (("miss", A), ("alarm", B)):
        (group,) = drawing.all("g", kind)
        for box in group.all("rect"):
            place = [float(box[name]) for name in ("x", "y", "width", "height")]
            assert place == [x1 * unit, y1 * unit, (x2 - x1) * unit, (y2 - y1) * unit]


def test_masks_are_measured_and_laid_over_the_images(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0), (B, 0)]])
    result = found_on(split, [[(A, 0, 0.9), (C, 0, 0.9)]], masks=True)
    page = write(tmp_path, result)
    assert result.scores.mask is not None
    assert page.tiles["Mask AP"][0] == f"{result.scores.mask.ap:.3f}"
    assert page.tiles["Box AP"][0] == f"{result.scores.box.ap:.3f}"
    assert [page.count("img", kind) for kind in ("truth", "hit", "alarm", "miss")] == [1, 1, 1, 1]
    assert page.count("g", "quiet") == 4  # no edges of boxes beside those of masks


def test_a_detector_that_finds_nothing_right_has_a_page(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0)], [(B, 1)]])
    cases: list[list[list[Detection]]] = [[[], []], [[(C, 0, 0.9)], []]]
    for detections in cases:
        page = write(tmp_path, found_on(split, detections))
        assert page.tiles["Box AP"][0] == "0.000"
        assert "0.5 was taken, as no detection is right." in page.text
        assert page.count("g", "miss") == 2
        assert page.count("g", "alarm") == len(detections[0])


def test_a_split_without_annotations_has_no_average_precision(tmp_path: Path) -> None:
    page = write(tmp_path, found_on(make(tmp_path, [[], []]), [[], [(A, 0, 0.9)]]))
    assert page.tiles["Box AP"][0] == "–"
    assert "No object is annotated in the split" in page.text
    assert page.count("svg", "square") == 0
    assert page.count("g", "alarm") == 1


def test_crowds_are_no_objects(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0), (B, 0)]], crowds=(1,))
    page = write(tmp_path, found_on(split, [[(A, 0, 0.9), (B, 0, 0.9)]]))
    assert "1 of 1 object found, 0 false alarms" in page.text


def test_a_single_class_needs_no_name_beside_its_boxes(tmp_path: Path) -> None:
    page = write(tmp_path, found_on(make(tmp_path, [[(A, 0)]], classes=("nucleus",)), [[(A, 0, 0.87)]]))
    (hit,) = page.all("g", "hit")
    assert [text.text for text in hit.all("text")] == ["0.87"]
    assert [title.text for title in hit.all("title")] == ["nucleus, found, score 0.87, overlap 1.00"]


def test_many_classes_are_listed_worst_first(tmp_path: Path) -> None:
    classes = tuple(f"class {number}" for number in range(80))
    split = make(tmp_path, [[(A, number), (B, number)] for number in range(0, 80)], classes=classes)
    detections: list[list[Detection]] = [[(A, n, 0.9), *([(B, n, 0.8)] if n != 41 else [])] for n in range(80)]
    page = write(tmp_path, found_on(split, detections))
    listed = page.section("Classes").rows()
    assert len(listed) == 80
    assert listed[0][0] == "class 41"
    assert page.count("svg", "square") == 24
    assert "56 better classes left out." in page.section("Precision").text


def test_names_are_shown_as_text(tmp_path: Path) -> None:
    boxes = [A, B, C, (60.0, 40.0, 79.0, 59.0)]
    split = make(tmp_path, [[(box, label) for label, box in enumerate(boxes)]], classes=HOSTILE)
    page = write(tmp_path, found_on(split, [[(box, (n + n // 2) % 4, 0.9) for n, box in enumerate(boxes)]]))
    page.assert_self_contained()
    assert [row[0] for row in page.section("Classes").rows()]
    for name in HOSTILE:
        assert name in page.text


@pytest.mark.parametrize("masks", [False, True])
def test_nothing_is_loaded_from_elsewhere(tmp_path: Path, masks: bool) -> None:
    page = write(tmp_path, found_on(make(tmp_path, [[(A, 0)]]), [[(A, 0, 0.9)]], masks=masks))
    assert page.images
    page.assert_self_contained()


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0)]] * 4)
    result = found_on(split, [[(A, 0, 0.9)]] * 4)
    (tmp_path / "0.png").unlink()
    (tmp_path / "1.png").write_text("no image")
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(tmp_path / "2.png")
    page = write(tmp_path, result)
    assert [image["alt"] for image in page.images] == ["3.png"]
    assert "3 images could not be read any more." in page.text
    config = TrainConfig(input=InputOptions(max_pixels=100), schedule=ScheduleOptions(epochs=1))
    assert not write(tmp_path, result, config=config).images


def test_the_page_of_large_crowded_images_is_bounded(tmp_path: Path) -> None:
    size = (500, 640)
    boxes: list[Annotation] = [((x, y, x + 9.0, y + 8.0), 0) for x in range(0, 600, 40) for y in range(0, 480, 40)]
    split = make(tmp_path, [boxes] * 13, classes=("x" * 60,), size=size)
    own: list[Detection] = [((x1 + 1, y1, x2, y2), 0, 0.9) for (x1, y1, x2, y2), _ in boxes[::2]]
    page = write(tmp_path, found_on(split, [own] * 13))
    assert len(page.source) < 5_000_000
    assert len(page.images) == SPREAD_IMAGES + WORST_IMAGES
    assert "120 objects at the most are drawn" in page.text
    assert all(max(int(image["width"] or 0), int(image["height"] or 0)) <= 512 for image in page.images)


# --- curves -----------------------------------------------------------------------------------------------------------


def test_the_course_shows_the_parts_of_the_loss_and_leaves_out_what_is_undefined(tmp_path: Path) -> None:
    metrics = [
        step(1, epoch=0.5, boxes=1.0, classification=1.0),
        evaluated(2, epoch=1, box_ap=0.2, box_ap50=None, box_ap75=0.1),
        step(3, epoch=1.5, boxes=0.5, classification=0.7),
        evaluated(4, epoch=2, box_ap=0.4, box_ap50=None, box_ap75=0.2),
    ]
    page = write(tmp_path, found_on(make(tmp_path, [[(A, 0)]]), [[]]), metrics=metrics)
    assert page.count("svg", "small") == 5  # loss, its parts, AP, learning rate, speed
    assert page.count("circle", "ring") == 1
    legends = [entry.text for entry in page.section("Course").all("span", "entry")]
    assert legends == ["boxes", "classification", "AP", "AP75"]


# --- semantic segmentation --------------------------------------------------------------------------------------------


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
