"""The page of a run of semantic segmentation: its numbers, its tables, and images with their maps of classes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.dense_loaders import read_label
from vision_longformer.datasets.semantic import BACKGROUND, IGNORE_INDEX
from vision_longformer.evaluation.confusions import Pair
from vision_longformer.evaluation.iou import SemanticScores, scores
from vision_longformer.evaluation.metric_names import shown
from vision_longformer.evaluation.segmentation import SemanticResult
from vision_longformer.images.decode import ImageError
from vision_longformer.images.thumbnails import Picture
from vision_longformer.prediction.colours import Colour, class_colour
from vision_longformer.reports.charts import Chart
from vision_longformer.reports.dense import CHOSEN_ON_THESE, dense_charts, left_out, place_of, size_of, table_notes
from vision_longformer.reports.matrix import PICKED, Matrix, choose_matrix
from vision_longformer.reports.pictures import encode, error_picture, paint, read_photo, shrink_map
from vision_longformer.reports.run import MAX_ROWS, Run, Tile
from vision_longformer.utils.words import counted, percent

SIDE = 384  # pixels of the longer side of a picture
PICTURE_BYTES = 48_000
MAX_NAMES = 40  # classes whose colours are told
WRONG: Colour = (213, 94, 0)
UNLABELLED: Colour = (235, 235, 235)
BEHIND: Colour = (45, 48, 54)  # of the background


class ClassRow(NamedTuple):
    """A row of the table of classes."""

    name: str
    iou: float
    recall: str
    precision: str
    pixels: str
    taken_for: str


class Shot(NamedTuple):
    """An image with its maps, in words and pictures, and the classes on it."""

    name: str
    words: str
    pictures: dict[str, Picture]
    classes: set[int]


@dataclass(frozen=True)
class SemanticPage:
    """What the page shows.

    Attributes:
        run: The run.
        result: Of its best weights.
    """

    run: Run
    result: SemanticResult
    template = "semantic.html"
    chosen_on_these = CHOSEN_ON_THESE
    picked = PICKED

    @property
    def place(self) -> str:
        """Where the images lie."""
        return place_of(self.result.split)

    @property
    def size(self) -> str:
        """At what size they were evaluated."""
        return size_of(self.run)

    @cached_property
    def measured(self) -> SemanticScores:
        """The measures."""
        return scores(self.result.confusion)

    @cached_property
    def counts(self) -> Tensor:
        """(K, K) numbers of pixels, true class by predicted class."""
        return self.result.confusion.cpu()

    @property
    def tiles(self) -> list[Tile]:
        """The main measures; "–" where no pixel is labelled."""
        total, measured = int(self.counts.sum()), self.measured
        miou = shown("miou", measured.miou if total else None)
        occurring = sum(not math.isnan(iou) for iou in measured.class_iou)
        words = f"mean over {counted(occurring, 'class')}; best epoch {self.run.progress.best_epoch}"
        tiles = [Tile("mIoU", miou, words)]
        if measured.foreground_iou is not None and total:
            iou = shown("iou", measured.foreground_iou)
            tiles.append(Tile(f"IoU of {self.result.classes[1]}", iou, "the one class"))
        accuracy = percent(int(self.counts.diagonal().sum()), total)
        return [*tiles, Tile("Pixel accuracy", accuracy, f"of {total:,} labelled pixels")]

    @property
    def charts(self) -> list[Chart]:
        """How the run went."""
        measures = [("val_miou", "mIoU"), ("val_pixel_accuracy", "pixel accuracy")]
        return dense_charts(self.run, [("Classes of pixels", measures)], best="val_miou")

    # --- classes ----------------------------------------------------------------------------------------------

    @cached_property
    def worst_first(self) -> list[int]:
        """The classes that occur, by their IoU."""
        ious = self.measured.class_iou
        return sorted((label for label, iou in enumerate(ious) if not math.isnan(iou)), key=lambda label: ious[label])

    @property
    def rows(self) -> list[ClassRow]:
        """The classes, worst first."""
        return [self._row(label) for label in self.worst_first[:MAX_ROWS]]

    def _row(self, label: int) -> ClassRow:
        counts, classes = self.counts, self.result.classes
        hits, own, taken = int(counts[label, label]), int(counts[label].sum()), int(counts[:, label].sum())
        others = counts[label].clone()
        others[label] = 0
        most = int(others.argmax())
        other = f"{classes[most]} ({_share(int(others[most]), own)})" if int(others[most]) else ""
        shares = _share(hits, own), _share(hits, taken), _share(own, int(counts.sum()))
        return ClassRow(classes[label], self.measured.class_iou[label], *shares, other)

    @property
    def more_rows(self) -> str:
        """What of the classes is not shown."""
        defined = len(self.worst_first)
        return table_notes(len(self.result.classes), min(defined, MAX_ROWS), defined, why="without a pixel")

    @cached_property
    def matrix(self) -> Matrix:
        """The confusion matrix of pixels."""
        filled = {(truth, taken): int(self.counts[truth, taken]) for truth, taken in self.counts.nonzero().tolist()}
        wrong = sorted((pair for pair in filled if pair[0] != pair[1]), key=lambda pair: -filled[pair])
        pairs = [Pair(truth, predicted, ()) for truth, predicted in wrong]
        return choose_matrix(Counter(filled), pairs, self.result.classes, shares=True)

    # --- examples ---------------------------------------------------------------------------------------------

    @cached_property
    def colours(self) -> list[Colour]:
        """A colour for each class."""
        return class_colours(self.result.classes)

    @cached_property
    def groups(self) -> list[tuple[str, list[Shot]]]:
        """Images at even distances in the split, and the worst, with a title each."""
        chosen = zip(("Spread over the split", "Lowest accuracy"), self.result.examples(), strict=True)
        return [(title, [shot for image in images if (shot := self._shot(image))]) for title, images in chosen]

    @property
    def chosen(self) -> str:
        """How they were chosen."""
        even, worst = self.result.examples()
        others = f"; the other {len(worst)} have the lowest pixel accuracy of all that are left" if worst else ""
        return f"The first {counted(len(even), 'image')} lie at even distances in the split{others}."

    @property
    def missing(self) -> str:
        """Which of them could not be read any more."""
        return left_out(sum(map(len, self.result.examples())), sum(len(shots) for _, shots in self.groups))

    @property
    def names(self) -> list[tuple[str, Colour]]:
        """The classes on the images, with their colours."""
        return [(self.result.classes[label], self.colours[label]) for label in self._seen[:MAX_NAMES]]

    @property
    def more_names(self) -> int:
        """Classes on the images that are not among `names`."""
        return max(0, len(self._seen) - MAX_NAMES)

    @property
    def _seen(self) -> list[int]:
        return sorted({label for _, shots in self.groups for shot in shots for label in shot.classes})

    def _shot(self, image: int) -> Shot | None:
        """Return an image with its maps; None if it cannot be read."""
        split, max_pixels = self.result.split, self.run.config.input.max_pixels
        photo = read_photo(partial(split.read, image, max_pixels=max_pixels), side=SIDE)
        if photo is None:
            return None
        size = (photo.height, photo.width)
        try:
            truth = shrink_map(read_label(split, image, max_pixels=max_pixels), size)
        except ImageError:
            return None
        predicted = shrink_map(self.result.labels[image], size)
        labelled, palette = truth != IGNORE_INDEX, [*self.colours, UNLABELLED]
        known = paint(np.where(labelled, truth, len(self.colours)), palette)
        pictures = {
            "image": encode(photo, max_bytes=PICTURE_BYTES),
            "truth": encode(known, "png", max_bytes=PICTURE_BYTES),
            "prediction": encode(paint(predicted, palette), "png", max_bytes=PICTURE_BYTES),
            "errors": encode(error_picture(photo, labelled & (truth != predicted), WRONG), max_bytes=PICTURE_BYTES),
        }
        accuracy = float(self.result.accuracy[image])
        words = f"{100 * accuracy:.1f}% of the labelled pixels right"
        name = Path(split.file_names[image] if isinstance(split, CocoSplit) else split.images[image]).name
        classes = set(np.unique(predicted).tolist()) | set(np.unique(truth[labelled]).tolist())
        return Shot(name, "no pixel is labelled" if math.isnan(accuracy) else words, pictures, classes)


def class_colours(classes: Sequence[str]) -> list[Colour]:
    """Return a colour for each class; a first one named background is dark."""
    plain = [BEHIND] if classes and classes[0] == BACKGROUND else []
    return [*plain, *map(class_colour, range(len(classes) - len(plain)))]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "–"
