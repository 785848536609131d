"""What the page of semantic segmentation shows: numbers, tables, and images with their maps of classes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from vision_longformer.datasets.dense_loaders import read_label
from vision_longformer.datasets.semantic import BACKGROUND
from vision_longformer.evaluation.confusions import Pair
from vision_longformer.evaluation.iou import SemanticScores, scores
from vision_longformer.evaluation.metric_names import shown
from vision_longformer.evaluation.segmentation import SemanticResult
from vision_longformer.images import ImageError
from vision_longformer.prediction.colours import Colour, class_colour
from vision_longformer.reports.dense import dense_charts, dense_contents, examples_chosen, table_notes
from vision_longformer.reports.matrix import PICKED, choose_matrix
from vision_longformer.reports.pictures import encode, error_picture, paint, read_photo, shrink_map
from vision_longformer.reports.run import MAX_ROWS, Run, Tile
from vision_longformer.segmentation.config import UNLABELLED
from vision_longformer.utils.words import counted, percent

SIDE = 384  # pixels of the longer side of a picture
PICTURE_BYTES = 48_000
MEASURES = {"Classes of pixels": [("val_miou", "mIoU"), ("val_pixel_accuracy", "pixel accuracy")]}
MAX_NAMES = 40  # classes whose colours are told
WRONG: Colour = (213, 94, 0)
NO_CLASS: Colour = (235, 235, 235)
BEHIND: Colour = (45, 48, 54)  # of the background


def contents(run: Run, result: SemanticResult) -> dict[str, Any]:
    """Return what semantic.html shows."""
    counts, measured = result.confusion.cpu(), scores(result.confusion)
    ious = measured.class_iou
    worst_first = sorted((label for label, iou in enumerate(ious) if not math.isnan(iou)), key=ious.__getitem__)
    rows = [_row(label, ious[label], result.classes, counts) for label in worst_first[:MAX_ROWS]]
    filled = {(truth, taken): int(counts[truth, taken]) for truth, taken in counts.nonzero().tolist()}
    wrong = sorted((pair for pair in filled if pair[0] != pair[1]), key=lambda pair: -filled[pair])
    pairs = [Pair(truth, predicted, ()) for truth, predicted in wrong]
    colours, (even, worst), max_pixels = class_colours(result.classes), result.examples(), run.config.input.max_pixels
    groups = {
        title: [shot for image in images if (shot := _shot(result, image, colours, max_pixels=max_pixels))]
        for title, images in (("Spread over the split", even), ("Lowest accuracy", worst))
    }
    seen = sorted({label for shots in groups.values() for shot in shots for label in shot["classes"]})
    return dense_contents(run, result.split, result.classes) | {
        "tiles": _tiles(result.classes, counts, measured, run.progress.best_epoch),
        "charts": dense_charts(run, MEASURES, best="val_miou"),
        "rows": rows,
        "more_rows": table_notes(len(result.classes), len(rows), len(worst_first), why="without a pixel"),
        "matrix": choose_matrix(Counter(filled), pairs, result.classes, shares=True),
        "picked": PICKED,
        "examples": {
            "chosen": examples_chosen(even, worst, by="pixel accuracy"),
            "groups": groups,
            "missing": len(even) + len(worst) - sum(map(len, groups.values())),
        },
        "names": [(result.classes[label], colours[label]) for label in seen[:MAX_NAMES]],
        "more_names": len(seen[MAX_NAMES:]),
    }


def _tiles(classes: Sequence[str], counts: Tensor, measured: SemanticScores, best_epoch: int) -> list[Tile]:
    """Return the main measures; "–" where no pixel is labelled."""
    total = int(counts.sum())
    occurring = sum(not math.isnan(iou) for iou in measured.class_iou)
    words = f"mean over {counted(occurring, 'class')}; best epoch {best_epoch}"
    tiles = [("mIoU", shown("miou", measured.miou if total else None), words)]
    if measured.foreground_iou is not None and total:
        tiles.append((f"IoU of {classes[1]}", shown("iou", measured.foreground_iou), "the one class"))
    accuracy = percent(int(counts.diagonal().sum()), total)
    return [*tiles, ("Pixel accuracy", accuracy, f"of {total:,} labelled pixels")]


def _row(label: int, iou: float, classes: Sequence[str], counts: Tensor) -> dict[str, Any]:
    hits, own, taken = int(counts[label, label]), int(counts[label].sum()), int(counts[:, label].sum())
    others = counts[label].clone()
    others[label] = 0
    most = int(others.argmax())
    return {
        "name": classes[label],
        "iou": iou,
        "shares": [_share(hits, own), _share(hits, taken), _share(own, int(counts.sum()))],
        "taken_for": f"{classes[most]} ({_share(int(others[most]), own)})" if int(others[most]) else "",
    }


def _shot(result: SemanticResult, image: int, colours: list[Colour], *, max_pixels: int) -> dict[str, Any] | None:
    """Return an image with its maps, and the classes on it; None if it cannot be read."""
    split = result.split
    try:
        raster, valid = split.read_and_valid(image, max_pixels=max_pixels)
        label = read_label(split, image, valid=valid, max_pixels=max_pixels)
    except ImageError:
        return None
    photo = read_photo(lambda: raster, side=SIDE)
    if photo is None:
        return None
    size = (photo.height, photo.width)
    truth = shrink_map(label, size)
    predicted = shrink_map(result.labels[image], size)
    palette, labelled = [*colours, NO_CLASS], truth != UNLABELLED
    known = paint(np.where(labelled, truth, len(colours)), palette)
    errors = error_picture(photo, labelled & (truth != predicted), WRONG)
    accuracy = float(result.accuracy[image])
    right = "no pixel is labelled" if math.isnan(accuracy) else f"{100 * accuracy:.1f}% of the labelled pixels right"
    return {
        "name": split.path(image).name,
        "words": right,
        "pictures": {
            "image": encode(photo, max_bytes=PICTURE_BYTES),
            "truth": encode(known, "png", max_bytes=PICTURE_BYTES),
            "prediction": encode(paint(predicted, palette), "png", max_bytes=PICTURE_BYTES),
            "errors": encode(errors, max_bytes=PICTURE_BYTES),
        },
        "classes": set(np.unique(predicted).tolist()) | set(np.unique(truth[labelled]).tolist()),
    }


def class_colours(classes: Sequence[str]) -> list[Colour]:
    """Return a colour for each class; a first one named background is dark."""
    plain = [BEHIND] if classes and classes[0] == BACKGROUND else []
    return [*plain, *map(class_colour, range(len(classes) - len(plain)))]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "–"
