"""The parts of a detector's page: its numbers, its charts and its tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vision_longformer.evaluation.coco import AveragePrecision
from vision_longformer.evaluation.detection import DetectionResult
from vision_longformer.evaluation.detection_confusions import Matching
from vision_longformer.evaluation.metric_names import shown
from vision_longformer.reports.curves import Colour
from vision_longformer.reports.dense_parts import MAX_ROWS, table_notes
from vision_longformer.reports.matrix import escape
from vision_longformer.reports.precision_recall import Curve, draw_precision_recall
from vision_longformer.reports.training_parts import Column, Tile, bar, counted, percent, scale, section, small, table

MAX_CURVES = 24  # classes with a precision-recall curve
SMALL, LARGE = 32**2, 96**2  # pixels, where COCO's sizes end and begin


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


def kinds(result: DetectionResult) -> list[tuple[str, AveragePrecision]]:
    """Return "mask", where there are masks, and "box" with their AP; the first is what the best epoch was chosen by."""
    scores = result.scores
    return ([("mask", scores.mask)] if scores.mask is not None else []) + [("box", scores.box)]


def measure_tiles(result: DetectionResult, best_epoch: int, *, objects: int) -> list[Tile]:
    """Return the main measures; "–" without an object, where they are not defined."""
    tiles = []
    for number, (kind, scores) in enumerate(kinds(result)):
        ap, ap50, ap75 = (_fraction(value if objects else math.nan) for value in (scores.ap, scores.ap50, scores.ap75))
        if number == 0:
            tiles.append(Tile(f"{kind.title()} AP", ap, f"mean over IoU 0.50 to 0.95; best epoch {best_epoch}"))
            tiles.append(Tile(f"{kind.title()} AP50", ap50, "at IoU 0.5"))
            tiles.append(Tile(f"{kind.title()} AP75", ap75, "at IoU 0.75"))
        else:
            tiles.append(Tile(f"{kind.title()} AP", ap, f"AP50 {ap50}, AP75 {ap75}"))
    return tiles


# --- tables -----------------------------------------------------------------------------------------------------


def class_section(result: DetectionResult, counts: Counts, threshold: float) -> str:
    """Return the table of classes, worst first."""
    measured, classes = kinds(result), result.split.classes
    order = worst_first(result)
    columns = [Column("Class"), Column("Objects")]
    for number, (kind, _) in enumerate(measured):
        columns += [
            Column(f"{kind.title()} AP"),
            *([scale("1")] if number == 0 else []),
            Column(f"{kind.title()} AP50"),
        ]
    columns += [Column("Recall"), Column("Precision")]
    if not order:
        return section("Classes", "<p>No object is annotated in the split, so that AP is not defined.</p>")
    guide = (
        f"<p class='guide'>Worst first. The bar ends at {measured[0][0]} AP, the mark on it is AP50. Recall is the "
        "share of the objects that was found, precision the share of the detections that are objects: both of boxes at "
        f"IoU 0.5, of detections with a score of {threshold:.2f} or more.</p>"
    )
    rows = (_class_row(label, classes[label], measured, counts) for label in order[:MAX_ROWS])
    notes = table_notes(len(classes), min(len(order), MAX_ROWS), len(order), why="without an object")
    return section("Classes", f"{guide}{table(columns, rows)}{small(notes)}")


def worst_first(result: DetectionResult) -> list[int]:
    """Return the classes that have objects, by their AP."""
    scores = kinds(result)[0][1].class_ap
    return sorted((label for label, ap in enumerate(scores) if not math.isnan(ap)), key=lambda label: scores[label])


def _class_row(
    label: int, name: str, measured: Sequence[tuple[str, AveragePrecision]], counts: Counts
) -> Iterator[str]:
    yield escape(name)
    yield f"{counts.objects[label]:,}"
    for number, (_, scores) in enumerate(measured):
        ap, ap50 = scores.class_ap[label], scores.class_ap50[label]
        yield _fraction(ap)
        if number == 0:
            yield bar(0.0, ap, ap50)
        yield _fraction(ap50)
    found, alarms = int(counts.found[label]), int(counts.alarms[label])
    yield _share(found, int(counts.objects[label]))
    yield _share(found, found + alarms)


def size_section(result: DetectionResult, counts: Counts) -> str:
    """Return the table of sizes of objects."""
    measured = kinds(result)
    columns = [Column("Size"), Column("Area in pixels"), Column("Objects")]
    columns += [*(Column(f"{kind.title()} AP") for kind, _ in measured), Column("Recall")]
    areas = (f"below {SMALL:,}", f"{SMALL:,} to {LARGE:,}", f"from {LARGE:,}")
    rows = [
        (
            name,
            areas[size],
            f"{counts.sizes[size]:,}",
            *(_fraction(getattr(scores, name)) for _, scores in measured),
            _share(int(counts.found_sizes[size]), int(counts.sizes[size])),
        )
        for size, name in enumerate(("small", "medium", "large"))
    ]
    guide = (
        "<p class='guide'>COCO's sizes, by the annotated area at the size of the image file. Recall as in the table of "
        "classes.</p>"
    )
    return section("Sizes of objects", guide + table(columns, rows))


# --- precision and recall ---------------------------------------------------------------------------------------


def recall_section(result: DetectionResult, counts: Counts, threshold: float) -> str:
    """Return a chart of precision over recall for each class, worst first."""
    order, classes, measured = worst_first(result), result.split.classes, kinds(result)
    if not order:
        return ""
    colours: dict[str, Colour] = {"box": "blue", "mask": "orange"}
    figures = []
    for label in order[:MAX_CURVES]:
        curves = [
            Curve(kind, colours[kind], scores.precisions[label], scores.recalls, _point(scores, label, threshold))
            for kind, scores in measured
        ]
        values = ", ".join(f"{kind} AP50 {_fraction(scores.class_ap50[label])}" for kind, scores in measured)
        caption = f"{values}; {counted(int(counts.objects[label]), 'object')}"
        drawn = draw_precision_recall(curves, label=f"Precision over recall of one class, {values}")
        figures.append(f"<figure><figcaption><b>{escape(classes[label])}</b> {caption}</figcaption>{drawn}</figure>")
    legend = "".join(f"<span class='key {colours[kind]}'></span>{kind}" for kind, _ in measured)
    guide = (
        f"<p class='guide'>At IoU 0.5, worst class first: {legend}. Precision is the best at a recall or a higher one, "
        f"as COCO takes it. The dot is where detections end that have a score of {threshold:.2f} or more.</p>"
    )
    more = len(order) - MAX_CURVES
    note = small(f"{counted(more, 'better class')} left out.") if more > 0 else ""
    return section("Precision and recall", f"{guide}<div class='recalls'>{''.join(figures)}</div>{note}")


def _point(scores: AveragePrecision, label: int, threshold: float) -> tuple[float, float] | None:
    """Return the last (recall, precision) that scores of `threshold` or more reach; None if they reach none."""
    reached = np.flatnonzero(scores.score_thresholds[label] >= threshold)
    if not reached.size:
        return None
    return float(scores.recalls[reached[-1]]), float(scores.precisions[label, reached[-1]])


def _fraction(value: float) -> str:
    return shown("ap", None if math.isnan(value) else value)


def _share(part: int, whole: int) -> str:
    return percent(part, whole) if whole else "–"
