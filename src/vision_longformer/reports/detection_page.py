"""What the page of a detector's run shows: its numbers, charts and tables, with masks or without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_longformer.evaluation.coco import AveragePrecision
from vision_longformer.evaluation.detection import DetectionResult
from vision_longformer.evaluation.detection_confusions import NO_THRESHOLD, Matching, best_threshold, match
from vision_longformer.evaluation.metric_names import shown
from vision_longformer.reports.charts import Chart, Colour, Place, Series
from vision_longformer.reports.dense import dense_charts, dense_contents, table_notes
from vision_longformer.reports.detection_examples import MAX_NAMED, find_examples
from vision_longformer.reports.run import MAX_ROWS, Run, Tile
from vision_longformer.utils.words import counted, percent

MAX_CURVES = 24  # classes with a precision-recall curve
SMALL, LARGE = 32**2, 96**2  # pixels, where COCO's sizes end and begin
AREAS = {"small": f"below {SMALL:,}", "medium": f"{SMALL:,} to {LARGE:,}", "large": f"from {LARGE:,}"}
COLOURS: dict[str, Colour] = {"box": "blue", "mask": "orange"}

Kinds = dict[str, AveragePrecision]  # "mask", where there are masks, and "box": the best epoch was chosen by the first


def contents(run: Run, result: DetectionResult) -> dict[str, Any]:
    """Return what detection.html shows."""
    split = result.split
    kinds: Kinds = {"box": result.scores.box}
    if result.scores.mask is not None:
        kinds = {"mask": result.scores.mask, **kinds}
    matchings = [match(split, image, result.found.get(image)) for image in range(len(split))]
    threshold = best_threshold(matchings)
    how = "the threshold with the best F1 over the split."
    if not any(len(matching.hits(threshold)) for matching in matchings):
        how = f"{NO_THRESHOLD} was taken, as no detection is right."
    counts = count(result, matchings, threshold)
    by_class = next(iter(kinds.values())).class_ap
    worst_first = sorted((n for n, ap in enumerate(by_class) if not math.isnan(ap)), key=lambda n: by_class[n])
    rows = [_row(label, split.classes[label], kinds, counts) for label in worst_first[:MAX_ROWS]]
    measures = {
        f"{kind.title()} AP": [(f"val_{kind}_{name}", name.upper()) for name in ("ap", "ap50", "ap75")]
        for kind in kinds
    }
    return dense_contents(run, split, split.classes) | {
        "objects": int(counts.objects.sum()),
        "tiles": _tiles(kinds, run.progress.best_epoch, objects=int(counts.objects.sum())),
        "charts": dense_charts(run, measures, best=f"val_{next(iter(kinds))}_ap"),
        "kinds": list(kinds),
        "threshold": f"{threshold:.2f}",
        "how": how,
        "rows": rows,
        "more_rows": table_notes(len(split.classes), len(rows), len(worst_first), why="without an object"),
        "sizes": [_size_row(number, kinds, counts) for number in range(3)],
        "curves": [_recall_chart(n, split.classes[n], kinds, counts, threshold) for n in worst_first[:MAX_CURVES]],
        "more_curves": len(worst_first[MAX_CURVES:]),
        "max_named": MAX_NAMED,
        "examples": find_examples(result, matchings, threshold, max_pixels=run.config.input.max_pixels),
    }


def _tiles(kinds: Kinds, best_epoch: int, *, objects: int) -> list[Tile]:
    """Return the main measures; "–" without an object, where they are not defined."""
    tiles: list[Tile] = []
    for kind, scores in kinds.items():
        values = (scores.ap, scores.ap50, scores.ap75)
        ap, ap50, ap75 = (fraction(value if objects else math.nan) for value in values)
        name = f"{kind.title()} AP"
        if tiles:
            tiles.append((name, ap, f"AP50 {ap50}, AP75 {ap75}"))
        else:
            tiles.append((name, ap, f"mean over IoU 0.50 to 0.95; best epoch {best_epoch}"))
            tiles += [(f"{name}50", ap50, "at IoU 0.5"), (f"{name}75", ap75, "at IoU 0.75")]
    return tiles


@dataclass(frozen=True, eq=False)
class Counts:
    """Objects and detections at a score threshold.

    Attributes:
        objects: (K,) of each class, without crowds.
        found: (K,) of these.
        alarms: (K,) detections of each class that are none.
        sizes: (3,) objects that are small, medium and large.
        found_sizes: (3,) of these.
    """

    objects: NDArray[np.int64]
    found: NDArray[np.int64]
    alarms: NDArray[np.int64]
    sizes: NDArray[np.int64]
    found_sizes: NDArray[np.int64]


def count(result: DetectionResult, matchings: Sequence[Matching], threshold: float) -> Counts:
    """Count the objects of a split, and what of them was found."""
    split, classes = result.split, len(result.split.classes)
    missed = np.concatenate([np.array([], np.int64), *(each.misses(threshold) for each in matchings)])
    wrong = [
        result.found[image].labels[matching.false_alarms(threshold)]
        for image, matching in enumerate(matchings)
        if image in result.found
    ]
    places = np.flatnonzero(~split.is_crowd)
    size = np.digitize(split.areas, (SMALL, LARGE))
    objects, sizes = np.bincount(split.labels[places], minlength=classes), np.bincount(size[places], minlength=3)
    return Counts(
        objects,
        objects - np.bincount(split.labels[missed], minlength=classes),
        np.bincount(np.concatenate([np.array([], np.int64), *wrong]), minlength=classes),
        sizes,
        sizes - np.bincount(size[missed], minlength=3),
    )


def _row(label: int, name: str, kinds: Kinds, counts: Counts) -> dict[str, Any]:
    found, alarms, objects = (int(each[label]) for each in (counts.found, counts.alarms, counts.objects))
    return {
        "name": name,
        "objects": objects,
        "ends": [(float(scores.class_ap[label]), float(scores.class_ap50[label])) for scores in kinds.values()],
        "measures": [
            (fraction(scores.class_ap[label]), fraction(scores.class_ap50[label])) for scores in kinds.values()
        ],
        "recall": percent(found, objects),
        "precision": percent(found, found + alarms),
    }


def _size_row(number: int, kinds: Kinds, counts: Counts) -> dict[str, Any]:
    name, objects = list(AREAS)[number], int(counts.sizes[number])
    return {
        "name": name,
        "area": AREAS[name],
        "objects": objects,
        "measures": [fraction(getattr(scores, name)) for scores in kinds.values()],
        "recall": percent(int(counts.found_sizes[number]), objects),
    }


def _recall_chart(label: int, name: str, kinds: Kinds, counts: Counts, threshold: float) -> Chart:
    """Return precision over recall at IoU 0.5."""
    series = [
        Series(kind, COLOURS[kind], [_corners(scores, label)], _end(scores, label, threshold))
        for kind, scores in kinds.items()
    ]
    values = ", ".join(f"{kind} AP50 {fraction(scores.class_ap50[label])}" for kind, scores in kinds.items())
    remark, ends = f"{values}; {counted(int(counts.objects[label]), 'object')}", (0.0, 100.0)
    return Chart(name, remark, series, ends, ends, x_name="recall, %", y_name="precision, %", kind="square")


def _corners(scores: AveragePrecision, label: int) -> list[Place]:
    """Return the (recall, precision) in percent where a curve of steps bends: what lies between is on a line."""
    recalls, precisions = (100 * scores.recalls).tolist(), (100 * scores.precisions[label]).tolist()
    ends = (0, len(recalls) - 1)
    return [
        (recalls[place], precisions[place])
        for place in range(len(recalls))
        if place in ends or not precisions[place - 1] == precisions[place] == precisions[place + 1]
    ]


def _end(scores: AveragePrecision, label: int, threshold: float) -> list[Place]:
    """Return the last (recall, precision) in percent that scores of `threshold` or more reach, if they reach any."""
    reached = np.flatnonzero(scores.score_thresholds[label] >= threshold)
    return [(100 * float(scores.recalls[at]), 100 * float(scores.precisions[label, at])) for at in reached[-1:]]


def fraction(value: float) -> str:
    """Return a measure as text; "–" where it is not defined."""
    return shown("ap", None if math.isnan(value) else value)
