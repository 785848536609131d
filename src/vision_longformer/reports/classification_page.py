"""A run's page: one file with its pictures inside, and nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vision_longformer.evaluation.classification import TOP, Evaluation
from vision_longformer.evaluation.confusions import (
    ClassResult,
    Pair,
    class_results,
    confused_pairs,
    count_pairs,
    wilson_interval,
)
from vision_longformer.images import ImageError, read_rgb
from vision_longformer.images.thumbnails import Picture
from vision_longformer.reports.curves import Chart, Series
from vision_longformer.reports.matrix import PICKED, choose_matrix, draw_matrix, escape
from vision_longformer.reports.training_parts import (
    Column,
    Course,
    Tile,
    bar,
    counted,
    curves,
    decimals,
    headline,
    page,
    percent,
    read_about,
    recipe,
    scale,
    section,
    small,
    swatches,
    table,
    trained_for,
    training_tiles,
)
from vision_longformer.training.checkpoints import Progress
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.run_folder import RunFolder

MAX_PAIRS = 12
MAX_THUMBNAILS = 6  # of a pair
THUMBNAIL = 128  # pixels of the longer side
MAX_CLASSES = 100  # rows of the table of classes


def write_report(folder: RunFolder, evaluation: Evaluation, config: TrainConfig, progress: Progress) -> None:
    """Write report.html.

    Args:
        folder: Of the run; its metrics.jsonl and run.json are read.
        evaluation: Of the best weights.
        config: Of the run.
        progress: At its end.

    Raises:
        OSError: The disk is full, or the place cannot be written; a previous report is as it was.
    """
    pairs = confused_pairs(evaluation)
    about = read_about(folder)
    parts = [
        _headline(evaluation, config, progress, about),
        _curves(folder.read_metrics(), config, progress),
        _confusion(evaluation, pairs),
        _pairs(evaluation, pairs, max_pixels=config.input.max_pixels),
        _classes(evaluation, class_results(evaluation, pairs)),
        recipe(config, about),
    ]
    folder.write_text(folder.report, page(config.model.name, parts))


# --- headline ---------------------------------------------------------------------------------------------------


def _headline(evaluation: Evaluation, config: TrainConfig, progress: Progress, about: dict[str, Any]) -> str:
    samples, metrics = evaluation.samples, evaluation.metrics()
    total, correct = len(samples), int(evaluation.correct[:, 0].sum())
    tiles = [
        Tile(
            "Top-1 accuracy",
            percent(correct, total),
            f"{_interval(correct, total)}, {correct:,} of {total:,} images; best epoch {progress.best_epoch}",
        )
    ]
    if len(samples.classes) > TOP:
        among = int(evaluation.correct.any(dim=1).sum())
        tiles.append(Tile("Top-5 accuracy", percent(among, total), f"{_interval(among, total)}, {among:,} images"))
    tiles.append(Tile("Validation loss", f"{metrics['loss']:.3f}", "mean cross-entropy, of the same weights"))
    lead = (
        f"{counted(len(samples.classes), 'class')}, {trained_for(config, about)} at {config.input.size}×"
        f"{config.input.size} pixels, evaluated on {counted(total, 'image')} in <b>{escape(_place(samples.paths))}</b>."
    )
    return headline(
        lead,
        [*tiles, *training_tiles(progress, about)],
        "Intervals are 95% confidence intervals (Wilson). They take images as independent: where several show the "
        "same object or person, the truth is less certain. The best epoch was chosen on these same images, which "
        "flatters the accuracy a little.",
    )


def _place(paths: Sequence[Path]) -> str:
    """Return the folder that all images share."""
    try:
        return os.path.commonpath([path.parent for path in paths])
    except ValueError:  # of no images, or of some relative and some absolute
        return "several folders"


# --- curves -----------------------------------------------------------------------------------------------------


def _curves(metrics: list[dict[str, Any]], config: TrainConfig, progress: Progress) -> str:
    course = Course.of(metrics)
    best = course.best("val_top1", progress)
    losses = (
        Series("training", "blue", course.step_points("loss")[0]),
        Series("validation", "orange", course.evaluation_points("val_loss")[0], marked=True),
    )
    accuracy = Series("validation", "orange", course.evaluation_points("val_top1")[0], marked=True)
    charts = [
        Chart("Loss", "cross-entropy", losses),
        Chart("Top-1 accuracy", "percent", (accuracy,), ring=best, highest=100),
    ]
    remark = (
        "Training loss is that of single steps, of augmented images, with label smoothing and whatever mixes images; "
        "it may well lie above the validation loss."
    )
    return curves(course, charts, config, remark=remark, ring=best is not None)


# --- mistakes ---------------------------------------------------------------------------------------------------


def _confusion(evaluation: Evaluation, pairs: Sequence[Pair]) -> str:
    classes = evaluation.samples.classes
    matrix = choose_matrix(count_pairs(evaluation), pairs, classes=len(classes))
    if not matrix.labels:
        return (
            f"<section><h2>Confusion matrix</h2><p>Every image was recognised, so that the matrix of {len(classes):,} "
            "classes has nothing to show.</p></section>\n"
        )
    notes = "Numbers are images. "
    if matrix.partial:
        notes += (
            f"Of {len(classes):,} classes the {len(matrix.labels)} in the most frequent confusions are shown (at most "
            f"{PICKED}); the last column holds predictions of any other class."
        )
    return (
        "<section><h2>Confusion matrix</h2><p class='guide'>A row holds the images of a class, a column those taken "
        "for one: "
        f"{swatches()} 1, 5, 25 and 100% of the row, recognised in blue and mistaken in orange. {notes}</p>"
        f"<div class='scroll'>{draw_matrix(matrix, classes)}</div></section>\n"
    )


def _pairs(evaluation: Evaluation, pairs: Sequence[Pair], *, max_pixels: int) -> str:
    if not pairs:
        return "<section><h2>Most confused</h2><p>No image was mistaken.</p></section>\n"
    left = ""
    if len(pairs) > MAX_PAIRS:
        rest = sum(len(pair.images) for pair in pairs[MAX_PAIRS:])
        left = small(f"{counted(len(pairs) - MAX_PAIRS, 'more pair')}, of {counted(rest, 'image')}, left out.")
    shown = "".join(_pair(evaluation, pair, max_pixels=max_pixels) for pair in pairs[:MAX_PAIRS])
    return (
        "<section><h2>Most confused</h2><p class='guide'>True class → predicted class. Below an image stands the "
        "probability that the model gave its wrong answer; the surest mistakes come first.</p>"
        f"<div class='pairs'>{shown}</div>{left}</section>\n"
    )


def _pair(evaluation: Evaluation, pair: Pair, *, max_pixels: int) -> str:
    samples, count = evaluation.samples, len(pair.images)
    truth, predicted = (escape(samples.classes[label]) for label in (pair.truth, pair.predicted))
    total = samples.labels.count(pair.truth)
    figures = []
    for image in pair.images[:MAX_THUMBNAILS]:
        picture = _thumbnail(samples.paths[image], max_pixels=max_pixels)
        if picture is not None:
            name = escape(samples.paths[image].name)
            sure = f"{100 * float(evaluation.probability[image]):.0f}%"
            figures.append(
                f"<figure class='thumbnail'><img src='{picture.uri}' alt='{name}' title='{name}' "
                f"width='{picture.width}' height='{picture.height}' loading='lazy'><figcaption>{sure}</figcaption>"
                "</figure>"
            )
    some = f", {len(figures)} shown" if 0 < len(figures) < count else ""
    return (
        f"<div class='pair' style='--thumbnails:{len(figures)}'><h3>{truth} → {predicted}</h3>"
        f"<div>{counted(count, 'image')}, {percent(count, total)} of the class{some}</div>"
        f"<div class='thumbnails'>{''.join(figures)}</div></div>\n"
    )


def _thumbnail(path: Path, *, max_pixels: int) -> Picture | None:
    """Return a small copy of an image; None if it cannot be read any more."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about odd but readable files
            image = read_rgb(path, max_pixels=max_pixels)
    except ImageError:
        return None
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return Picture(base64.b64encode(buffer.getvalue()).decode(), "jpeg", image.width, image.height)


# --- classes ----------------------------------------------------------------------------------------------------


def _classes(evaluation: Evaluation, results: Sequence[ClassResult]) -> str:
    classes = evaluation.samples.classes
    notes = []
    if len(results) > MAX_CLASSES:
        low, high = (percent(end.correct, end.total) for end in (results[MAX_CLASSES], results[-1]))
        more = counted(len(results) - MAX_CLASSES, "more class")
        notes.append(f"{more} left out, with accuracies from {low} to {high}.")
    if len(results) < len(classes):
        notes.append(f"{counted(len(classes) - len(results), 'class')} without validation images left out.")
    rows = (_class_row(result, classes) for result in results[:MAX_CLASSES])
    columns = [Column("Class"), Column("Accuracy"), scale("100%"), Column("Interval"), Column("Images")]
    columns.append(Column("Mostly taken for", text=True))
    guide = (
        "<p class='guide'>Worst first. The bar is the 95% interval, the mark on it the accuracy. With few images the "
        "order is mostly chance.</p>"
    )
    return section("Accuracy by class", f"{guide}{table(columns, rows)}{small(' '.join(notes))}")


def _class_row(result: ClassResult, classes: Sequence[str]) -> tuple[str, ...]:
    low, high = wilson_interval(result.correct, result.total)
    other = ""
    if result.taken_for is not None:
        other = f"{escape(classes[result.taken_for.predicted])} ({len(result.taken_for.images):,})"
    return (
        escape(classes[result.label]),
        percent(result.correct, result.total),
        bar(low, high, result.accuracy),
        _span(low, high, result.total),
        f"{result.correct:,} of {result.total:,}",
        other,
    )


# --- words ------------------------------------------------------------------------------------------------------


def _interval(count: int, total: int) -> str:
    return f"95% interval {_span(*wilson_interval(count, total), total)}"


def _span(low: float, high: float, total: int) -> str:
    return f"{100 * low:.{decimals(total)}f}–{100 * high:.{decimals(total)}f}%"
