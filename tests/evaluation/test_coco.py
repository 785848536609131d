from __future__ import annotations

import contextlib
import copy
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from datasets.coco_cases import random_content, write_content, write_images
from vision_longformer.datasets.coco import CocoSplit, read_coco
from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.evaluation.coco import AveragePrecision, coco_results, evaluate, write_results
from vision_longformer.masks.rle import mask_to_rle, segmentation_to_mask

Content = dict[str, Any]
TOLERANCE = 1e-9


def read(folder: Path, content: Content) -> CocoSplit:
    write_images(folder, content)
    return read_coco(write_content(folder / "a.json", content), folder, with_masks=True)


def found_near(split: CocoSplit, *, seed: int = 0, share: float = 0.8, levels: int = 5) -> dict[int, FoundObjects]:
    """Return detections near most objects, some of a wrong class, with few different scores, so that many tie."""
    generator = np.random.default_rng(seed)
    assert split.segmentations is not None
    found = {}
    for image in range(len(split)):
        places = np.array([place for place in split.annotations(image) if generator.random() < share], int)
        corners = split.boxes_xywh[places][:, :2] + generator.normal(0, 1, (len(places), 2))
        sides = split.boxes_xywh[places][:, 2:] * generator.uniform(0.8, 1.2, (len(places), 2))
        labels = np.where(generator.random(len(places)) < 0.1, 2, split.labels[places])
        scores = np.ceil(generator.random(len(places)) * levels) / levels
        size = split.size(image)
        masks = [np.roll(segmentation_to_mask(split.segmentations, place, size), 1, axis=1) for place in places]
        rles = [mask_to_rle(mask & (generator.random(size) < 0.9)) for mask in masks]
        found[image] = FoundObjects(np.concatenate([corners, corners + sides], axis=1), scores, labels, rles)
    return found


def reference(content: Content, results: list[dict[str, Any]], kind: str) -> tuple[list[float], np.ndarray]:
    """Return AP, AP50, AP75, small, medium, large and the precisions by pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        own = copy.deepcopy(results)
        for result in own:
            result.pop("bbox" if kind == "segm" else "segmentation", None)
        evaluation = COCOeval(truth, truth.loadRes(own), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:6].tolist(), evaluation.eval["precision"]


def assert_agrees(ours: AveragePrecision, content: Content, results: list[dict[str, Any]], kind: str) -> None:
    stats, precision = reference(content, results, kind)
    for value, expected in zip((ours.ap, ours.ap50, ours.ap75), stats[:3], strict=True):
        assert value == pytest.approx(max(expected, 0), abs=TOLERANCE)
    for value, expected in zip((ours.small, ours.medium, ours.large), stats[3:], strict=True):
        assert (-1 if math.isnan(value) else value) == pytest.approx(expected, abs=TOLERANCE)
    everything = precision[:, :, :, 0, -1]
    np.testing.assert_allclose(np.nan_to_num(ours.precisions, nan=-1), everything[0].T, rtol=0, atol=TOLERANCE)
    for label in range(everything.shape[2]):
        for value, expected in (
            (ours.class_ap[label], everything[:, :, label].mean()),
            (ours.class_ap50[label], everything[0, :, label].mean()),
        ):
            assert (-1 if math.isnan(value) else value) == pytest.approx(expected, abs=TOLERANCE)


def assert_both_agree(split: CocoSplit, content: Content, found: dict[int, FoundObjects]) -> None:
    results = coco_results(split, found)
    scores = evaluate(split, results, masks=True)
    assert scores.mask is not None
    assert_agrees(scores.box, content, results, "bbox")
    assert_agrees(scores.mask, content, results, "segm")


@pytest.mark.parametrize("seed", range(4))
def test_random_sets_with_crowds_ties_and_unused_classes_agree_with_pycocotools(tmp_path: Path, seed: int) -> None:
    content = random_content(seed=seed, images=5, per_image=9)
    split = read(tmp_path, content)
    found = found_near(split, seed=seed)
    assert_both_agree(split, content, found)
    ours = evaluate(split, coco_results(split, found), masks=True)
    assert 0.05 < ours.box.ap < 0.95
    assert math.isnan(ours.box.class_ap[2])


def only(content: Content, **changes: Any) -> Content:
    """Return a copy of a content with values of all of its annotations changed."""
    content = copy.deepcopy(content)
    for annotation in content["annotations"]:
        annotation.update(changes)
    return content


def test_a_single_class_agrees_with_pycocotools(tmp_path: Path) -> None:
    content = only(random_content(images=4, per_image=9), category_id=7)
    content["categories"] = [{"id": 7, "name": "leaf"}]
    split = read(tmp_path, content)
    found = {
        image: FoundObjects(entry.boxes, entry.scores, 0 * entry.labels, entry.masks)
        for image, entry in found_near(split).items()
    }
    assert_both_agree(split, content, found)


def test_nothing_but_crowds_is_nothing_to_be_found(tmp_path: Path) -> None:
    content = only(random_content(), iscrowd=1)
    split = read(tmp_path, content)
    found = found_near(split)
    assert_both_agree(split, content, found)
    assert evaluate(split, coco_results(split, found), masks=False).box.ap == 0


def test_more_than_100_detections_of_an_image_and_class_are_cut_as_pycocotools_does(tmp_path: Path) -> None:
    content = random_content(images=2, per_image=6, kinds=("compressed",))
    content = only(content, category_id=2)
    split = read(tmp_path, content)
    generator = np.random.default_rng(0)
    places = np.tile(np.arange(6), 60)
    boxes = split.boxes[places] + generator.normal(0, 2, (360, 4))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    masks = [mask_to_rle(generator.random(split.size(0)) < 0.5) for _ in places]
    found = {0: FoundObjects(boxes, np.round(generator.random(360), 2), np.zeros(360, int), masks)}
    assert_both_agree(split, content, found)


def test_huge_and_tiny_boxes_and_images_without_annotations_agree_with_pycocotools(tmp_path: Path) -> None:
    content = random_content(images=3, per_image=4)
    boxes = ([0.0, 0.0, 53.0, 37.0], [3.0, 3.0, 0.01, 0.01])
    for annotation, box in zip(content["annotations"], boxes, strict=False):
        annotation["bbox"] = box
        annotation["area"] = box[2] * box[3]
    content["annotations"][2]["area"] = 100.0**2
    content["annotations"][3]["area"] = 32.0**2  # on the border between small and medium
    split = read(tmp_path, content)
    found = found_near(split, share=1.0)
    extra = np.array([[0, 0, 61, 23], [5, 5, 5.001, 5.001], [-50, -50, 500, 500]])
    masks = [mask_to_rle(np.full(split.size(2), value)) for value in (True, False, True)]
    found[2] = FoundObjects(extra, np.array([0.9, 0.5, 0.1]), np.array([0, 1, 2]), masks)
    assert_both_agree(split, content, found)


def test_perfect_detections_score_1(tmp_path: Path) -> None:
    content = random_content(kinds=("polygons", "compressed"))
    split = read(tmp_path, content)
    assert split.segmentations is not None
    found = {
        image: FoundObjects(
            np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
            np.ones(len(xywh)),
            split.labels[split.annotations(image)],
            [
                mask_to_rle(segmentation_to_mask(split.segmentations, place, split.size(image)))
                for place in split.annotations(image)
            ],
        )
        for image, xywh in ((image, split.boxes_xywh[split.annotations(image)]) for image in range(3))
    }
    scores = evaluate(split, coco_results(split, found), masks=True)
    assert scores.mask is not None
    assert scores.box.ap == scores.box.ap50 == scores.mask.ap == pytest.approx(1)
    assert scores.metrics()["box_ap"] == pytest.approx(1)


def test_no_detections_score_0_and_say_so_for_each_class_that_occurs(tmp_path: Path) -> None:
    content = random_content()
    split = read(tmp_path, content)
    scores = evaluate(split, [], masks=True)
    assert scores.mask is not None
    for kind in (scores.box, scores.mask):
        assert (kind.ap, kind.ap50, kind.ap75) == (0, 0, 0)
        assert kind.class_ap[:2] == (0, 0)
        assert math.isnan(kind.class_ap[2])
    assert scores.metrics()["mask_ap50"] == 0


def test_without_annotations_the_measures_are_0_and_those_of_sizes_and_classes_undefined(tmp_path: Path) -> None:
    content = random_content()
    found = found_near(read(tmp_path / "full", content))
    content["annotations"] = []
    split = read(tmp_path / "empty", content)
    assert_both_agree(split, content, found)
    for results in ([], coco_results(split, found)):
        scores = evaluate(split, results, masks=True)
        assert scores.metrics() == {
            f"{kind}_{name}": value
            for kind in ("box", "mask")
            for name, value in (
                ("ap", 0),
                ("ap50", 0),
                ("ap75", 0),
                ("ap_small", None),
                ("ap_medium", None),
                ("ap_large", None),
            )
        }
        assert all(math.isnan(value) for value in scores.box.class_ap)
        assert np.isnan(scores.box.precisions).all()


def test_ids_decide_nothing(tmp_path: Path) -> None:
    """The library takes annotation 0 for none at all, and keeps ids as small numbers."""
    content = random_content(images=4, per_image=6)
    split = read(tmp_path / "one", content)
    found = found_near(split)
    expected = evaluate(split, coco_results(split, found), masks=True).metrics()
    for number, annotation in enumerate(content["annotations"]):
        annotation["id"] = number
        annotation["image_id"] += 2**61
    for image in content["images"]:
        image["id"] += 2**61
    other = read(tmp_path / "two", content)
    results = coco_results(other, found)
    assert {result["image_id"] for result in results} <= {image["id"] for image in content["images"]}
    assert evaluate(other, results, masks=True).metrics() == expected


def test_scores_rank_images_of_equal_score_by_id_wherever_they_stand_in_the_file(tmp_path: Path) -> None:
    content = random_content(images=5, per_image=6)
    content["images"].reverse()
    split = read(tmp_path, content)
    assert_both_agree(split, content, found_near(split, levels=1))


def test_precision_and_recall_say_which_score_reaches_what(tmp_path: Path) -> None:
    content = random_content(images=2, per_image=4, kinds=("compressed",))
    content = only(content, category_id=2)
    split = read(tmp_path, content)
    boxes = np.concatenate([split.boxes[[0]], split.boxes[[1]] + 100, split.boxes[[1]]])
    found = {0: FoundObjects(boxes, np.array([0.9, 0.8, 0.7]), np.zeros(3, int))}
    result = evaluate(split, coco_results(split, found), masks=False).box
    for recall, precision, score in ((0.25, 1, 0.9), (0.26, 2 / 3, 0.7), (0.5, 2 / 3, 0.7), (0.51, 0, 0)):
        place = int(np.argmin(np.abs(result.recalls - recall)))
        assert result.precisions[0, place] == pytest.approx(precision)
        assert result.score_thresholds[0, place] == pytest.approx(score)
    assert np.isnan(result.score_thresholds[1:]).all()


def test_results_are_written_as_coco_has_them(tmp_path: Path) -> None:
    content = random_content()
    split = read(tmp_path / "images", content)
    masks = [mask_to_rle(np.ones(split.size(1), bool))] * 2
    boxes = np.array([[1.5, 2, 11, 22], [3, 4, 5, 6]], np.float32)
    results = coco_results(split, {1: FoundObjects(boxes, np.array([0.25, 0.5]), np.array([1, 2]), masks)})
    write_results(tmp_path / "out" / "results.json", results)
    read_again = json.loads((tmp_path / "out" / "results.json").read_text())
    assert read_again == results
    assert read_again[0] == {
        "image_id": 8,
        "category_id": 7,
        "bbox": [1.5, 2, 9.5, 20],
        "score": 0.25,
        "segmentation": {"size": [41, 29], "counts": masks[0]["counts"]},
    }
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.json"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(tmp_path / "out" / "results.json", [{"score": math.nan}])
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results


def test_detections_of_a_class_that_the_file_lacks_are_left_out(tmp_path: Path) -> None:
    content = random_content()
    write_images(tmp_path, content)
    file = write_content(tmp_path / "a.json", content)
    split = read_coco(file, tmp_path, with_masks=True, classes=("cell", "other", "leaf", "unused"))
    boxes = np.array([[1, 2, 11, 22], [3, 4, 5, 6]], np.float32)
    results = coco_results(split, {1: FoundObjects(boxes, np.array([0.25, 0.5]), np.array([1, 2]))})
    assert [result["category_id"] for result in results] == [7]
    assert math.isnan(evaluate(split, results, masks=False).box.class_ap[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 6}, r"result 0 \(image 6\): .*a\.json has no such image"),
        ({"image_id": None}, r"result 0 \(image None\): .* has no such image"),
        ({"category_id": 1}, "has no category 1"),
        ({"score": math.nan}, "has the score nan and the bbox"),
        ({"bbox": [1, 2, 3]}, r"the bbox \[1, 2, 3\], which are not numbers"),
        ({"bbox": [1, 2, 3, math.inf]}, "which are not numbers"),
        ({"segmentation": None}, r"needs a mask of size \[37, 53\] in compressed run lengths"),
        ({"segmentation": {"size": [53, 37], "counts": "52"}}, r"needs a mask of size \[37, 53\]"),
        ({"segmentation": {"size": [37, 53], "counts": "52"}}, "its counts add up to 7 pixels"),
    ],
)
def test_malformed_results_never_reach_compiled_code(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    split = read(tmp_path, random_content())
    valid = {
        "image_id": 5,
        "category_id": 2,
        "bbox": [1, 2, 3, 4],
        "score": 0.5,
        "segmentation": dict(mask_to_rle(np.ones((37, 53), bool))),
    }
    evaluate(split, [valid], masks=True)
    with pytest.raises(ValueError, match=message):
        evaluate(split, [valid | change], masks=True)


def test_masks_must_have_been_read(tmp_path: Path) -> None:
    content = random_content()
    write_images(tmp_path, content)
    split = read_coco(write_content(tmp_path / "a.json", content), tmp_path, with_masks=False)
    with pytest.raises(ValueError, match="was read without masks"):
        evaluate(split, [], masks=True)
