"""A run's page: one file with its pictures inside, and nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import io
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vision_longformer.images import ImageError, read_rgb
from vision_longformer.pictures import Picture
from vision_longformer.training.checkpoints import Progress
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.curves import Chart, Series, draw_chart, points_of
from vision_longformer.training.evaluation import TOP, Evaluation
from vision_longformer.training.matrix import PICKED, choose_matrix, draw_matrix, escape, strength
from vision_longformer.training.mistakes import (
    ClassResult,
    Pair,
    class_results,
    confused_pairs,
    count_pairs,
    wilson_interval,
)
from vision_longformer.training.page_style import STYLE
from vision_longformer.training.recipes import write_recipe
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
    about = _read_about(folder)
    parts = [
        _headline(evaluation, config, progress, about),
        _curves(folder.read_metrics(), config, progress),
        _confusion(evaluation, pairs),
        _pairs(evaluation, pairs, max_pixels=config.input.max_pixels),
        _classes(evaluation, class_results(evaluation, pairs)),
        _recipe(config, about),
    ]
    head = _HEAD.format(title=escape(config.model.name), style=STYLE)
    folder.write_text(folder.report, f"{head}{''.join(parts)}</main></body></html>\n")


# --- headline ---------------------------------------------------------------------------------------------------


def _headline(evaluation: Evaluation, config: TrainConfig, progress: Progress, about: dict[str, Any]) -> str:
    samples, metrics = evaluation.samples, evaluation.metrics()
    total, correct = len(samples), int(evaluation.correct[:, 0].sum())
    trained = f"on {_counted(about['images'], 'image')} " if "images" in about else ""
    tiles = [
        (
            "Top-1 accuracy",
            _percent(correct, total),
            f"{_interval(correct, total)}, {correct:,} of {total:,} images; best epoch {progress.best_epoch}",
        )
    ]
    if len(samples.classes) > TOP:
        among = int(evaluation.correct.any(dim=1).sum())
        tiles.append(("Top-5 accuracy", _percent(among, total), f"{_interval(among, total)}, {among:,} images"))
    tiles.append(("Validation loss", f"{metrics['loss']:.3f}", "mean cross-entropy, of the same weights"))
    if "parameters" in about:
        tiles.append(("Parameters", f"{about['parameters'] / 1e6:,.2f} M", escape(_machine(about))))
    tiles.append(("Training time", _duration(progress.seconds), f"{progress.step:,} steps, evaluations not counted"))
    shown = "".join(
        f"<div><dt>{name}</dt><dd class='value'>{value}</dd><dd>{remark}</dd></div>" for name, value, remark in tiles
    )
    return (
        f"<p class='lead'>{_counted(len(samples.classes), 'class')}, trained for "
        f"{_counted(config.schedule.epochs, 'epoch')} {trained}at {config.input.size}×{config.input.size} pixels, "
        f"evaluated on {_counted(total, 'image')} in <b>{escape(_place(samples.paths))}</b>.</p><dl class='tiles'>"
        f"{shown}</dl><p class='guide'>Intervals are 95% confidence intervals (Wilson). They take images as "
        "independent: where several show the same object or person, the truth is less certain. The best epoch was "
        "chosen on these same images, which flatters the accuracy a little.</p>\n"
    )


def _read_about(folder: RunFolder) -> dict[str, Any]:
    try:
        about = json.loads(folder.about.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # the page then leaves out what only run.json says
    return about if isinstance(about, dict) else {}


def _place(paths: Sequence[Path]) -> str:
    """Return the folder that all images share."""
    try:
        return os.path.commonpath([path.parent for path in paths])
    except ValueError:  # of no images, or of some relative and some absolute
        return "several folders"


def _machine(about: dict[str, Any]) -> str:
    words = [f"on {about['device']}"] if "device" in about else []
    if about.get("device") == "cpu" and "threads" in about:
        words.append(_counted(about["threads"], "thread"))
    if about.get("processes", 1) > 1:
        words.append(_counted(about["processes"], "process"))
    return ", ".join(words)


# --- curves -----------------------------------------------------------------------------------------------------


def _curves(metrics: list[dict[str, Any]], config: TrainConfig, progress: Progress) -> str:
    lines = sorted({("val_loss" in line, line["step"]): line for line in metrics}.values(), key=lambda x: x["epoch"])
    steps = [line for line in lines if "loss" in line]
    evaluations = [line for line in lines if "val_loss" in line]
    best = next(
        ((line["epoch"], line["val_top1"]) for line in evaluations if line["epoch"] == progress.best_epoch), None
    )
    loss, group = points_of((line["epoch"], line["loss"]) for line in steps)
    rate, _ = points_of((line["epoch"], line["learning_rate"]) for line in steps)
    speed, _ = points_of((line["epoch"], line["images_per_second"]) for line in steps)
    validation, val_group = points_of((line["epoch"], line["val_loss"]) for line in evaluations)
    accuracy, _ = points_of((line["epoch"], line["val_top1"]) for line in evaluations)
    losses = (Series("training", "blue", loss), Series("validation", "orange", validation, marked=True))
    charts = [
        Chart("Loss", "cross-entropy", losses),
        Chart(
            "Top-1 accuracy",
            "percent",
            (Series("validation", "orange", accuracy, marked=True),),
            ring=best,
            highest=100,
        ),
        Chart("Learning rate", "largest of all parameters", (Series("", "blue", rate),), from_zero=True),
        Chart("Speed", "images a second", (Series("", "blue", speed),), from_zero=True),
    ]
    drawn = "".join(
        _figure(chart, epochs=config.schedule.epochs)
        for chart in charts
        if any(series.points for series in chart.series)
    )
    notes = [
        "Training loss is that of single steps, of augmented images, with label smoothing and whatever mixes images; "
        "it may well lie above the validation loss."
    ]
    if best is not None:
        notes.append("The ring marks the best epoch.")
    if not steps:
        notes.append("No training step was logged: logging.every_steps is larger than their number.")
    if group > 1:
        notes.append(f"Lines show means of {group} logged steps, bands the lowest and highest of them.")
    if val_group > 1:
        notes.append(f"Of the many evaluations, means of {val_group} are shown.")
    return f"<section><h2>Course of the run</h2><div class='charts'>{drawn}</div>{_small(' '.join(notes))}</section>\n"


def _figure(chart: Chart, *, epochs: int) -> str:
    named = [series for series in chart.series if series.label and series.points]
    legend = "".join(
        f"<span class='key {series.colour}{' marked' if series.marked else ''}'></span>{series.label}"
        for series in named
    )
    return (
        f"<figure><figcaption><b>{chart.title}</b> <span>{chart.unit}</span><span class='legend'>{legend}</span>"
        f"</figcaption>{draw_chart(chart, epochs=epochs)}</figure>"
    )


# --- mistakes ---------------------------------------------------------------------------------------------------


def _confusion(evaluation: Evaluation, pairs: Sequence[Pair]) -> str:
    classes = evaluation.samples.classes
    matrix = choose_matrix(count_pairs(evaluation), pairs, classes=len(classes))
    if not matrix.labels:
        return (
            f"<section><h2>Confusion matrix</h2><p>Every image was recognised, so that the matrix of {len(classes):,} "
            "classes has nothing to show.</p></section>\n"
        )
    scale = "".join(
        f"<span class='swatch {kind}' style='opacity:{strength(share):.2f}'></span>"
        for kind in ("right", "wrong")
        for share in (0.01, 0.05, 0.25, 1.0)
    )
    notes = "Numbers are images. "
    if matrix.partial:
        notes += (
            f"Of {len(classes):,} classes the {len(matrix.labels)} in the most frequent confusions are shown (at most "
            f"{PICKED}); the last column holds predictions of any other class."
        )
    return (
        "<section><h2>Confusion matrix</h2><p class='guide'>A row holds the images of a class, a column those taken "
        "for one: <span class='scale'>"
        f"{scale}</span> 1, 5, 25 and 100% of the row, recognised in blue and mistaken in orange. {notes}</p>"
        f"<div class='scroll'>{draw_matrix(matrix, classes)}</div></section>\n"
    )


def _pairs(evaluation: Evaluation, pairs: Sequence[Pair], *, max_pixels: int) -> str:
    if not pairs:
        return "<section><h2>Most confused</h2><p>No image was mistaken.</p></section>\n"
    left = ""
    if len(pairs) > MAX_PAIRS:
        rest = sum(len(pair.images) for pair in pairs[MAX_PAIRS:])
        left = _small(f"{_counted(len(pairs) - MAX_PAIRS, 'more pair')}, of {_counted(rest, 'image')}, left out.")
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
        f"<div>{_counted(count, 'image')}, {_percent(count, total)} of the class{some}</div>"
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
        low, high = (_percent(end.correct, end.total) for end in (results[MAX_CLASSES], results[-1]))
        more = _counted(len(results) - MAX_CLASSES, "more class")
        notes.append(f"{more} left out, with accuracies from {low} to {high}.")
    if len(results) < len(classes):
        notes.append(f"{_counted(len(classes) - len(results), 'class')} without validation images left out.")
    rows = "".join(_class_rows(results[:MAX_CLASSES], classes))
    return (
        "<section><h2>Accuracy by class</h2><p class='guide'>Worst first. The bar is the 95% interval, the mark on it "
        "the accuracy. With few images the order is mostly chance.</p><div class='scroll'><table><thead><tr><th>Class"
        "<th>Accuracy<th class='text'><span class='ends'><span>0</span><span>100%</span></span><th>Interval<th>Images"
        f"<th class='text'>Mostly taken for</tr></thead><tbody>{rows}</tbody></table></div>{_small(' '.join(notes))}"
        "</section>\n"
    )


def _class_rows(results: Sequence[ClassResult], classes: Sequence[str]) -> Iterator[str]:
    for result in results:
        low, high = wilson_interval(result.correct, result.total)
        bar = (
            f"<span class='track'><span class='range' style='left:{low:.1%};width:{high - low:.1%}'></span>"
            f"<span class='mark' style='left:{result.accuracy:.1%}'></span></span>"
        )
        other = ""
        if result.taken_for is not None:
            other = f"{escape(classes[result.taken_for.predicted])} ({len(result.taken_for.images):,})"
        yield (
            f"<tr><th scope='row'>{escape(classes[result.label])}<td>{_percent(result.correct, result.total)}"
            f"<td class='text'>{bar}<td>{_span(low, high, result.total)}<td>{result.correct:,} of {result.total:,}"
            f"<td class='text'>{other}</tr>\n"
        )


# --- recipe -----------------------------------------------------------------------------------------------------


def _recipe(config: TrainConfig, about: dict[str, Any]) -> str:
    versions = about.get("versions", {})
    told = {key: value for key, value in about.items() if key not in ("classes", "versions")}
    rows = "".join(
        f"<tr><th scope='row'>{escape(str(key).replace('_', ' '))}<td class='text'>{escape(str(value))}</tr>"
        for key, value in [*told.items(), *versions.items()]
    )
    return (
        f"<section><details><summary>Recipe</summary><pre>{escape(write_recipe(config))}</pre></details>"
        f"<details><summary>Machine and versions</summary><div class='scroll'><table><tbody>{rows}</tbody></table>"
        "</div></details></section>\n"
    )


# --- words ------------------------------------------------------------------------------------------------------


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.{_decimals(total)}f}%"


def _interval(count: int, total: int) -> str:
    return f"95% interval {_span(*wilson_interval(count, total), total)}"


def _span(low: float, high: float, total: int) -> str:
    return f"{100 * low:.{_decimals(total)}f}–{100 * high:.{_decimals(total)}f}%"


def _decimals(total: int) -> int:
    return 1 if total < 10_000 else 2


def _counted(count: int, noun: str) -> str:
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _small(text: str) -> str:
    return f"<p class='small'>{text}</p>" if text else ""


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: training</title><style>{style}</style></head><body><main>
<h1>Training of {title}</h1>
"""
