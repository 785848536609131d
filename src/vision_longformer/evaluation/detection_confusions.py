"""What a detector misses and what it sees where nothing is, image by image.

n detections of an image, m annotated objects of it
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.evaluation.coco import MAX_DETECTIONS
from vision_longformer.evaluation.examples import WORST_IMAGES, evenly

MIN_IOU = 0.5  # of the boxes of a detection and its object
NONE = -1
NO_THRESHOLD = 0.5  # where no score is better than another


@dataclass(frozen=True, eq=False)
class Matching:
    """Which detections of an image are objects of it, as COCO's evaluation matches them at IoU 0.5.

    In the order of their scores, detections take the free object of their class that they overlap most. So whether one
    is right does not depend on which less sure ones are shown with it.

    Attributes:
        scores: (n,) of the detections; 0 for those beyond `MAX_DETECTIONS` of a class, which COCO does not count.
        taken: (n,) place in the split of each detection's object; `NONE` without.
        iou: (n,) of the boxes of both; 0 without.
        ignored: (n,) whether a detection without an object lies in a crowd region, where it counts as nothing.
        places: (m,) of the image's objects in the split; regions of crowds are none.
        found: (m,) score of the detection that took each object; -inf without.
    """

    scores: NDArray[np.float64]
    taken: NDArray[np.int64]
    iou: NDArray[np.float64]
    ignored: NDArray[np.bool_]
    places: NDArray[np.int64]
    found: NDArray[np.float64]

    def hits(self, threshold: float) -> NDArray[np.int64]:
        """Return the detections of at least this score that have an object."""
        return np.flatnonzero((self.scores >= threshold) & (self.taken != NONE))

    def false_alarms(self, threshold: float) -> NDArray[np.int64]:
        """Return the detections of at least this score that have none."""
        return np.flatnonzero((self.scores >= threshold) & (self.taken == NONE) & ~self.ignored)

    def misses(self, threshold: float) -> NDArray[np.int64]:
        """Return the places of the objects without a detection of at least this score."""
        return self.places[self.found < threshold]

    def f1(self, threshold: float) -> float:
        """Return twice the hits over the objects and the detections; NaN where there are neither."""
        hits, wrong = len(self.hits(threshold)), len(self.false_alarms(threshold))
        return 2 * hits / (hits + wrong + len(self.places)) if hits + wrong + len(self.places) else math.nan


def match(split: CocoSplit, image: int, found: FoundObjects | None) -> Matching:
    """Match what was found on an image with its annotations."""
    annotated = np.array(split.annotations(image), np.int64)
    places, crowds = annotated[~split.is_crowd[annotated]], annotated[split.is_crowd[annotated]]
    object_score = np.full(len(places), -math.inf)
    boxes = np.asarray([] if found is None else found.boxes, np.float64).reshape(-1, 4)
    labels = np.asarray([] if found is None else found.labels, np.int64)
    scores = np.array([] if found is None else found.scores, np.float64)
    order = np.argsort(-scores, kind="stable")
    for label in np.unique(labels):
        scores[order[labels[order] == label][MAX_DETECTIONS:]] = 0.0
    overlap = _overlaps(boxes, _corners(split, places))
    overlap[labels[:, None] != split.labels[places]] = 0.0
    taken, iou = np.full(len(boxes), NONE, np.int64), np.zeros(len(boxes))
    for detection in order[(overlap[order] >= MIN_IOU).any(axis=1)].tolist():
        free = np.where(np.isinf(object_score), overlap[detection], 0.0)
        best = int(free.argmax())
        if scores[detection] > 0 and free[best] >= MIN_IOU:
            taken[detection], iou[detection] = places[best], free[best]
            object_score[best] = scores[detection]
    within = _overlaps(boxes, _corners(split, crowds), of_first=True)
    within[labels[:, None] != split.labels[crowds]] = 0.0
    return Matching(scores, taken, iou, np.asarray((within >= MIN_IOU).any(axis=1)), places, object_score)


def best_threshold(matchings: Sequence[Matching]) -> float:
    """Return the score threshold with the largest F1 over all objects and detections of a split."""
    scores = np.concatenate([np.array([]), *(matching.scores[~_void(matching)] for matching in matchings)])
    right = np.concatenate([np.array([]), *(matching.taken[~_void(matching)] != NONE for matching in matchings)])
    objects = sum(len(matching.places) for matching in matchings)
    if not right.any():
        return NO_THRESHOLD
    order = np.argsort(-scores, kind="stable")
    hits, shown = np.cumsum(right[order]), np.arange(1, len(order) + 1)
    last = np.append(np.diff(scores[order]) != 0, True)  # of equal scores: all are shown or none
    f1 = np.where(last, 2 * hits / (shown + objects), -1.0)
    return float(scores[order][f1.argmax()])


def choose_examples(matchings: Sequence[Matching], threshold: float) -> tuple[list[int], list[int]]:
    """Choose images to show.

    Args:
        matchings: Of all images.
        threshold: Detections below it are not shown.

    Returns:
        Places in the split: some at even distances; and of the others the worst, those with the lowest F1, and of
        equal ones those with more mistakes. Images without a mistake are never among the worst.
    """
    chosen = evenly(len(matchings))

    def badness(image: int) -> tuple[float, int, int]:
        matching = matchings[image]
        mistakes = len(matching.false_alarms(threshold)) + len(matching.misses(threshold))
        return matching.f1(threshold), -mistakes, image

    others = [image for image in range(len(matchings)) if image not in chosen and matchings[image].f1(threshold) < 1]
    return chosen, sorted(others, key=badness)[:WORST_IMAGES]


def _void(matching: Matching) -> NDArray[np.bool_]:
    """Return which detections count neither as right nor as wrong."""
    return np.asarray((matching.scores <= 0) | (matching.ignored & (matching.taken == NONE)))


def _corners(split: CocoSplit, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return boxes x1, y1, x2, y2 as the file has them."""
    xywh = split.boxes_xywh[places]
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def _overlaps(
    boxes: NDArray[np.float64], others: NDArray[np.float64], *, of_first: bool = False
) -> NDArray[np.float64]:
    """Return (n, m) intersections of boxes x1, y1, x2, y2 over their union, or over the first box alone."""
    low, high = np.maximum(boxes[:, None, :2], others[:, :2]), np.minimum(boxes[:, None, 2:], others[:, 2:])
    shared = np.maximum(high - low, 0.0).prod(axis=2)
    own, other = ((pair[:, 2:] - pair[:, :2]).prod(axis=1) for pair in (boxes, others))
    whole = own[:, None] + (0.0 * other if of_first else other - shared)
    return np.asarray(np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0))
