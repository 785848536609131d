"""What the page of a classifier's run shows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vision_longformer.evaluation.classification import TOP, Evaluation
from vision_longformer.evaluation.confusions import (
    ClassResult,
    Pair,
    class_results,
    confused_pairs,
    count_pairs,
    wilson_interval,
)
from vision_longformer.images import read_raster
from vision_longformer.reports.matrix import PICKED, choose_matrix
from vision_longformer.reports.pictures import encode, read_photo
from vision_longformer.reports.run import MAX_ROWS, Run, Tile
from vision_longformer.utils.words import counted, decimals, percent

MAX_PAIRS = 12
MAX_THUMBNAILS = 6  # of a pair
THUMBNAIL = 128  # pixels of the longer side


def contents(run: Run, result: Evaluation) -> dict[str, Any]:
    """Return what classification.html shows."""
    samples, pairs = result.samples, confused_pairs(result)
    results = class_results(result, pairs)
    losses = run.curve("loss", "training"), run.curve("val_loss", "validation", "orange")
    accuracy = run.curve("val_top1", "validation", "orange")
    return {
        "classes": samples.classes,
        "images": len(samples),
        "place": _place(samples.paths),
        "tiles": _tiles(run, result),
        "charts": [
            run.chart("Loss", "cross-entropy", *losses),
            run.chart("Top-1 accuracy", "percent", accuracy, ring="val_top1", highest=100),
        ],
        "matrix": choose_matrix(count_pairs(result), pairs, samples.classes),
        "picked": PICKED,
        "pairs": [_pair(run, result, pair) for pair in pairs[:MAX_PAIRS]],
        "more_pairs": pairs[MAX_PAIRS:],
        "rows": [_row(result, samples.classes) for result in results[:MAX_ROWS]],
        "more_rows": _more_rows(results, samples.classes),
    }


def _place(paths: Sequence[Path]) -> str:
    """Return the folder that all images share."""
    try:
        return os.path.commonpath([path.parent for path in paths])
    except ValueError:  # of no images, or of some relative and some absolute
        return "several folders"


def _tiles(run: Run, result: Evaluation) -> list[Tile]:
    total, correct = len(result.samples), int(result.correct[:, 0].sum())
    words = f"{_interval(correct, total)}, {correct:,} of {total:,} images; best epoch {run.progress.best_epoch}"
    tiles = [("Top-1 accuracy", percent(correct, total), words)]
    if len(result.samples.classes) > TOP:
        among = int(result.correct.any(dim=1).sum())
        tiles.append(("Top-5 accuracy", percent(among, total), f"{_interval(among, total)}, {among:,} images"))
    loss = f"{result.metrics()['loss']:.3f}"
    return [*tiles, ("Validation loss", loss, "mean cross-entropy, of the same weights")]


def _pair(run: Run, result: Evaluation, pair: Pair) -> dict[str, Any]:
    """Return a pair with the images of it that can still be read."""
    samples, count, thumbnails = result.samples, len(pair.images), []
    for image in pair.images[:MAX_THUMBNAILS]:
        path = samples.paths[image]
        photo = read_photo(
            partial(read_raster, path, reading=samples.reading, max_pixels=run.config.input.max_pixels), side=THUMBNAIL
        )
        if photo is not None:
            thumbnails.append((encode(photo), path.name, float(result.probability[image])))
    words = f"{counted(count, 'image')}, {percent(count, samples.labels.count(pair.truth))} of the class"
    if 0 < len(thumbnails) < count:
        words += f", {len(thumbnails)} shown"
    truth, predicted = samples.classes[pair.truth], samples.classes[pair.predicted]
    return {"truth": truth, "predicted": predicted, "words": words, "thumbnails": thumbnails}


def _row(result: ClassResult, classes: Sequence[str]) -> dict[str, Any]:
    low, high = wilson_interval(result.correct, result.total)
    taken = result.taken_for
    return {
        "name": classes[result.label],
        "result": result,
        "ends": (low, high),
        "interval": _span(low, high, result.total),
        "taken_for": "" if taken is None else f"{classes[taken.predicted]} ({len(taken.images):,})",
    }


def _more_rows(results: Sequence[ClassResult], classes: Sequence[str]) -> str:
    """Return what of the classes is not shown."""
    notes = []
    if len(results) > MAX_ROWS:
        low, high = (percent(end.correct, end.total) for end in (results[MAX_ROWS], results[-1]))
        more = counted(len(results) - MAX_ROWS, "more class")
        notes.append(f"{more} left out, with accuracies from {low} to {high}.")
    if len(results) < len(classes):
        notes.append(f"{counted(len(classes) - len(results), 'class')} without validation images left out.")
    return " ".join(notes)


def _interval(count: int, total: int) -> str:
    return f"95% interval {_span(*wilson_interval(count, total), total)}"


def _span(low: float, high: float, total: int) -> str:
    return f"{100 * low:.{decimals(total)}f}–{100 * high:.{decimals(total)}f}%"
