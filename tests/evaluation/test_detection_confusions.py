from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from reports.dense_cases import A, Annotation, B, C, Detection, found_on, make
from vision_longformer.evaluation.detection_confusions import NONE, best_threshold, choose_examples, match
from vision_longformer.evaluation.examples import SPREAD_IMAGES, evenly


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


def test_a_result_tells_the_best_score_and_its_f1(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0), (B, 1)], [(C, 2)]])
    far = (0.0, 50.0, 9.0, 59.0)
    result = found_on(split, [[(A, 0, 0.9), (B, 1, 0.6), (far, 0, 0.35)], [(far, 1, 0.7), (C, 2, 0.31259)]])
    assert result.best is not None
    assert result.best == pytest.approx((0.312, 6 / 8))
    assert (result.metrics()["best_score"], result.metrics()["best_f1"]) == result.best
    assert found_on(split, [[(far, 0, 0.9)], []]).best is None
    assert found_on(split, [[(far, 0, 0.9)], []]).metrics()["best_score"] is None
