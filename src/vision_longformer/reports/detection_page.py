"""The page of a detector's run: its numbers, its charts and its tables, with masks or without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision_longformer.evaluation.coco import AveragePrecision
from vision_longformer.evaluation.detection import DetectionResult
from vision_longformer.evaluation.detection_confusions import NO_THRESHOLD, Matching, best_threshold, match
from vision_longformer.evaluation.metric_names import shown
from vision_longformer.reports.charts import Chart, Colour, Place, Series
from vision_longformer.reports.dense import CHOSEN_ON_THESE, dense_charts, place_of, size_of, table_notes
from vision_longformer.reports.detection_examples import MAX_NAMED, Examples, find_examples
from vision_longformer.reports.run import MAX_ROWS, Run, Tile
from vision_longformer.utils.words import counted, percent

MAX_CURVES = 24  # classes with a precision-recall curve
SMALL, LARGE = 32**2, 96**2  # pixels, where COCO's sizes end and begin
COLOURS: dict[str, Colour] = {"box": "blue", "mask": "orange"}


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


class ClassRow(NamedTuple):
    """A row of the table of classes; of each kind of region, mask and box, its AP and AP50."""

    name: str
    objects: int
    measures: list[tuple[float, float]]
    recall: str
    precision: str


class SizeRow(NamedTuple):
    """A row of the table of sizes."""

    name: str
    area: str
    objects: int
    measures: list[str]
    recall: str


@dataclass(frozen=True)
class DetectionPage:
    """What the page shows.

    Attributes:
        run: The run.
        result: Of its best weights.
    """

    run: Run
    result: DetectionResult
    template = "detection.html"
    chosen_on_these = CHOSEN_ON_THESE
    max_named = MAX_NAMED

    @cached_property
    def place(self) -> str:
        """Where the images lie."""
        return place_of(self.result.split)

    @property
    def size(self) -> str:
        """At what size they were evaluated."""
        return size_of(self.run)

    @cached_property
    def kinds(self) -> list[tuple[str, AveragePrecision]]:
        """ "mask", where there are masks, and "box" with their AP; the best epoch was chosen by the first."""
        scores = self.result.scores
        return ([("mask", scores.mask)] if scores.mask is not None else []) + [("box", scores.box)]

    @cached_property
    def matchings(self) -> list[Matching]:
        """Which detections are objects, image by image."""
        split = self.result.split
        return [match(split, image, self.result.found.get(image)) for image in range(len(split))]

    @cached_property
    def threshold(self) -> float:
        """The least score of the detections that are shown."""
        return best_threshold(self.matchings)

    @property
    def how_chosen(self) -> str:
        """Why it is this one."""
        if any(len(matching.hits(self.threshold)) for matching in self.matchings):
            return "the threshold with the best F1 over the split."
        return f"{NO_THRESHOLD} was taken, as no detection is right."

    @cached_property
    def counts(self) -> Counts:
        """The objects of the split, and what of them was found."""
        return count(self.result, self.matchings, self.threshold)

    @property
    def objects(self) -> int:
        """Objects of the split."""
        return int(self.counts.objects.sum())

    @property
    def tiles(self) -> list[Tile]:
        """The main measures; "–" without an object, where they are not defined."""
        tiles = []
        for number, (kind, scores) in enumerate(self.kinds):
            values = (scores.ap, scores.ap50, scores.ap75)
            ap, ap50, ap75 = (fraction(value if self.objects else math.nan) for value in values)
            name = f"{kind.title()} AP"
            if number:
                tiles.append(Tile(name, ap, f"AP50 {ap50}, AP75 {ap75}"))
                continue
            tiles.append(Tile(name, ap, f"mean over IoU 0.50 to 0.95; best epoch {self.run.progress.best_epoch}"))
            tiles += [Tile(f"{name}50", ap50, "at IoU 0.5"), Tile(f"{name}75", ap75, "at IoU 0.75")]
        return tiles

    @property
    def charts(self) -> list[Chart]:
        """How the run went."""
        names = [kind for kind, _ in self.kinds]
        measures = [
            (f"{kind.title()} AP", [(f"val_{kind}_{name}", name.upper()) for name in ("ap", "ap50", "ap75")])
            for kind in names
        ]
        return dense_charts(self.run, measures, best=f"val_{names[0]}_ap")

    # --- tables -----------------------------------------------------------------------------------------------

    @cached_property
    def worst_first(self) -> list[int]:
        """The classes that have objects, by their AP."""
        scores = self.kinds[0][1].class_ap
        return sorted((label for label, ap in enumerate(scores) if not math.isnan(ap)), key=lambda label: scores[label])

    @property
    def rows(self) -> list[ClassRow]:
        """The classes, worst first."""
        return [self._class_row(label) for label in self.worst_first[:MAX_ROWS]]

    def _class_row(self, label: int) -> ClassRow:
        found, alarms = int(self.counts.found[label]), int(self.counts.alarms[label])
        objects = int(self.counts.objects[label])
        measures = [(float(scores.class_ap[label]), float(scores.class_ap50[label])) for _, scores in self.kinds]
        name = self.result.split.classes[label]
        return ClassRow(name, objects, measures, percent(found, objects), percent(found, found + alarms))

    @property
    def more_rows(self) -> str:
        """What of the classes is not shown."""
        defined = len(self.worst_first)
        return table_notes(len(self.result.split.classes), min(defined, MAX_ROWS), defined, why="without an object")

    @property
    def sizes(self) -> list[SizeRow]:
        """COCO's sizes."""
        areas, counts = (f"below {SMALL:,}", f"{SMALL:,} to {LARGE:,}", f"from {LARGE:,}"), self.counts
        return [
            SizeRow(
                name,
                areas[size],
                int(counts.sizes[size]),
                [fraction(getattr(scores, name)) for _, scores in self.kinds],
                percent(int(counts.found_sizes[size]), int(counts.sizes[size])),
            )
            for size, name in enumerate(("small", "medium", "large"))
        ]

    # --- precision and recall, images -------------------------------------------------------------------------

    @property
    def recall_charts(self) -> list[Chart]:
        """Precision over recall at IoU 0.5, of each class, worst first."""
        return [self._recall_chart(label) for label in self.worst_first[:MAX_CURVES]]

    def _recall_chart(self, label: int) -> Chart:
        series = [
            Series(kind, COLOURS[kind], [corners(scores, label)], marks=end_of(scores, label, self.threshold))
            for kind, scores in self.kinds
        ]
        values = ", ".join(f"{kind} AP50 {fraction(scores.class_ap50[label])}" for kind, scores in self.kinds)
        remark = f"{values}; {counted(int(self.counts.objects[label]), 'object')}"
        ends, name = (0.0, 100.0), self.result.split.classes[label]
        return Chart(name, remark, series, ends, ends, x_name="recall, %", y_name="precision, %", kind="square")

    @property
    def more_charts(self) -> str:
        """What of the classes has no chart."""
        more = len(self.worst_first) - MAX_CURVES
        return f"{counted(more, 'better class')} left out." if more > 0 else ""

    @cached_property
    def examples(self) -> Examples:
        """Images with what was found on them."""
        return find_examples(self.result, self.matchings, self.threshold, max_pixels=self.run.config.input.max_pixels)

    @staticmethod
    def fraction(value: float) -> str:
        """Return a measure as text; "–" where it is not defined."""
        return fraction(value)


def fraction(value: float) -> str:
    """Return a measure as text; "–" where it is not defined."""
    return shown("ap", None if math.isnan(value) else value)


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


def corners(scores: AveragePrecision, label: int) -> list[Place]:
    """Return the (recall, precision) in percent where a curve of steps bends: what lies between is on a line."""
    recalls, precisions = (100 * scores.recalls).tolist(), (100 * scores.precisions[label]).tolist()
    ends = (0, len(recalls) - 1)
    return [
        (recalls[place], precisions[place])
        for place in range(len(recalls))
        if place in ends or not precisions[place - 1] == precisions[place] == precisions[place + 1]
    ]


def end_of(scores: AveragePrecision, label: int, threshold: float) -> list[Place]:
    """Return the last (recall, precision) in percent that scores of `threshold` or more reach, if they reach any."""
    reached = np.flatnonzero(scores.score_thresholds[label] >= threshold)
    return [(100 * float(scores.recalls[at]), 100 * float(scores.precisions[label, at])) for at in reached[-1:]]
