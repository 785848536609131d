"""The page of a classifier's run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

from vision_longformer.evaluation.classification import TOP, Evaluation
from vision_longformer.evaluation.confusions import (
    ClassResult,
    Pair,
    class_results,
    confused_pairs,
    count_pairs,
    wilson_interval,
)
from vision_longformer.images.decode import read_rgb
from vision_longformer.images.thumbnails import Picture
from vision_longformer.reports.charts import Chart
from vision_longformer.reports.matrix import PICKED, Matrix, choose_matrix
from vision_longformer.reports.pictures import encode, read_photo
from vision_longformer.reports.run import MAX_ROWS, Run, Tile
from vision_longformer.utils.words import counted, decimals, percent

MAX_PAIRS = 12
MAX_THUMBNAILS = 6  # of a pair
THUMBNAIL = 128  # pixels of the longer side


class Thumbnail(NamedTuple):
    """A small picture of an image."""

    picture: Picture
    name: str
    sure: str  # how probable the model found its wrong answer


class ShownPair(NamedTuple):
    """Images of a class that were taken for another."""

    truth: str
    predicted: str
    words: str
    thumbnails: list[Thumbnail]


class ClassRow(NamedTuple):
    """How well the images of a class were recognised, `low` to `high` being the 95% interval."""

    name: str
    result: ClassResult
    low: float
    high: float
    interval: str
    taken_for: str


@dataclass(frozen=True)
class ClassificationPage:
    """What the page shows.

    Attributes:
        run: The run.
        result: Of its best weights.
    """

    run: Run
    result: Evaluation
    template = "classification.html"
    picked = PICKED

    @property
    def place(self) -> str:
        """The folder that all images share."""
        try:
            return os.path.commonpath([path.parent for path in self.result.samples.paths])
        except ValueError:  # of no images, or of some relative and some absolute
            return "several folders"

    @property
    def tiles(self) -> list[Tile]:
        """The main numbers."""
        total, correct = len(self.result.samples), int(self.result.correct[:, 0].sum())
        words = (
            f"{_interval(correct, total)}, {correct:,} of {total:,} images; best epoch {self.run.progress.best_epoch}"
        )
        tiles = [Tile("Top-1 accuracy", percent(correct, total), words)]
        if len(self.result.samples.classes) > TOP:
            among = int(self.result.correct.any(dim=1).sum())
            tiles.append(Tile("Top-5 accuracy", percent(among, total), f"{_interval(among, total)}, {among:,} images"))
        loss = f"{self.result.metrics()['loss']:.3f}"
        return [*tiles, Tile("Validation loss", loss, "mean cross-entropy, of the same weights")]

    @property
    def charts(self) -> list[Chart]:
        """How the run went."""
        run = self.run
        losses = run.curve("loss", "training"), run.curve("val_loss", "validation", "orange")
        accuracy = run.curve("val_top1", "validation", "orange")
        return [
            run.chart("Loss", "cross-entropy", *losses),
            run.chart("Top-1 accuracy", "percent", accuracy, ring="val_top1", highest=100),
        ]

    @cached_property
    def confused(self) -> list[Pair]:
        """What was taken for what, most images first."""
        return confused_pairs(self.result)

    @cached_property
    def matrix(self) -> Matrix:
        """The confusion matrix."""
        return choose_matrix(count_pairs(self.result), self.confused, self.result.samples.classes)

    @cached_property
    def pairs(self) -> list[ShownPair]:
        """The most confused, with images that can be read."""
        return [self._pair(pair) for pair in self.confused[:MAX_PAIRS]]

    @property
    def more_pairs(self) -> str:
        """What of the pairs is not shown."""
        rest = self.confused[MAX_PAIRS:]
        images = sum(len(pair.images) for pair in rest)
        return f"{counted(len(rest), 'more pair')}, of {counted(images, 'image')}, left out." if rest else ""

    def _pair(self, pair: Pair) -> ShownPair:
        samples, count, thumbnails = self.result.samples, len(pair.images), list[Thumbnail]()
        for image in pair.images[:MAX_THUMBNAILS]:
            path = samples.paths[image]
            photo = read_photo(partial(read_rgb, path, max_pixels=self.run.config.input.max_pixels), side=THUMBNAIL)
            if photo is not None:
                sure = f"{100 * float(self.result.probability[image]):.0f}%"
                thumbnails.append(Thumbnail(encode(photo), path.name, sure))
        words = f"{counted(count, 'image')}, {percent(count, samples.labels.count(pair.truth))} of the class"
        if 0 < len(thumbnails) < count:
            words += f", {len(thumbnails)} shown"
        return ShownPair(samples.classes[pair.truth], samples.classes[pair.predicted], words, thumbnails)

    @cached_property
    def _results(self) -> list[ClassResult]:
        return class_results(self.result, self.confused)

    @property
    def rows(self) -> list[ClassRow]:
        """The classes, worst first."""
        return [_row(result, self.result.samples.classes) for result in self._results[:MAX_ROWS]]

    @property
    def more_rows(self) -> str:
        """What of the classes is not shown."""
        results, classes, notes = self._results, self.result.samples.classes, []
        if len(results) > MAX_ROWS:
            low, high = (percent(end.correct, end.total) for end in (results[MAX_ROWS], results[-1]))
            more = counted(len(results) - MAX_ROWS, "more class")
            notes.append(f"{more} left out, with accuracies from {low} to {high}.")
        if len(results) < len(classes):
            notes.append(f"{counted(len(classes) - len(results), 'class')} without validation images left out.")
        return " ".join(notes)


def _row(result: ClassResult, classes: Sequence[str]) -> ClassRow:
    low, high = wilson_interval(result.correct, result.total)
    other = ""
    if result.taken_for is not None:
        other = f"{classes[result.taken_for.predicted]} ({len(result.taken_for.images):,})"
    return ClassRow(classes[result.label], result, low, high, _span(low, high, result.total), other)


def _interval(count: int, total: int) -> str:
    return f"95% interval {_span(*wilson_interval(count, total), total)}"


def _span(low: float, high: float, total: int) -> str:
    return f"{100 * low:.{decimals(total)}f}–{100 * high:.{decimals(total)}f}%"
