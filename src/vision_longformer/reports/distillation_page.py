"""The page of a run that a teacher taught: how far the student agrees with it, and what looks alike to the student."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch.nn import functional as F

from vision_longformer.reports.curves import Chart, Series
from vision_longformer.reports.matrix import escape
from vision_longformer.reports.training_parts import (
    Course,
    Tile,
    counted,
    curves,
    headline,
    page,
    percent,
    read_about,
    recipe,
    section,
    small,
    trained_for,
    training_tiles,
)
from vision_longformer.training.checkpoints import Progress
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.distillation import Agreement
from vision_longformer.training.run_folder import RunFolder

QUERIES = 8  # images whose neighbours are shown
NEIGHBOURS = 5  # of each
THUMBNAIL = 104  # pixels of the longer side

STYLE = """
.alike { display: grid; gap: 1.2rem; }
.row { display: flex; flex-wrap: wrap; gap: 8px; align-items: flex-start; }
.row .thumbnail:first-child { margin-right: 1.2rem; }
.row figcaption { font-size: .8rem; line-height: 1.3; overflow-wrap: anywhere; }
"""


def write_distillation_report(
    folder: RunFolder,
    result: Agreement,
    config: TrainConfig,
    progress: Progress,
    *,
    classes: Sequence[str],
    picture: Callable[[int], Image.Image],
) -> None:
    """Write report.html.

    Args:
        folder: Of the run; its metrics.jsonl and run.json are read.
        result: Of the best weights.
        config: Of the run.
        progress: At its end.
        classes: Names of the teacher's classes.
        picture: Gives an image by its number.

    Raises:
        OSError: The disk is full, or the place cannot be written; a previous report is as it was.
    """
    about = read_about(folder)
    total, same = len(result.images), int((result.teacher == result.student).sum())
    tiles = [
        Tile(
            "Agreement with the teacher",
            percent(same, total),
            f"same first class for {same:,} of {counted(total, 'image')}; best epoch {progress.best_epoch}",
        ),
        Tile("Divergence", f"{result.metrics()['divergence']:.2f}", "mean, in nats, from the teacher's probabilities"),
    ]
    lead = (
        f"Taught by <b>{escape(str(config.distillation.teacher))}</b>, {trained_for(config, about)}, without labels of "
        f"their own; evaluated on {counted(total, 'other image')} at {config.input.size}×{config.input.size} pixels."
    )
    guide = (
        "Agreement says how well the student repeats its teacher on images that it was not trained on, not how often "
        "either is right. Features are often useful long before agreement is high. <code>vil train "
        f"--model.checkpoint {escape(str(folder.best))}</code> starts from these weights, and <code>vil encode "
        f"--checkpoint {escape(str(folder.best))}</code> encodes with them."
    )
    parts = [
        headline(lead, [*tiles, *training_tiles(progress, about)], guide),
        _curves(folder, config, progress),
        _alike(result, classes, picture),
        recipe(config, about),
    ]
    folder.write_text(folder.report, page(config.model.name, parts, style=STYLE))


def _curves(folder: RunFolder, config: TrainConfig, progress: Progress) -> str:
    course = Course.of(folder.read_metrics())
    best = course.best("val_agreement", progress)
    parts = (("logits", "blue"), ("features", "orange"), ("labels", "green"))
    losses = tuple(Series(name, colour, course.step_points(f"loss_{name}")[0]) for name, colour in parts)  # type: ignore[arg-type]
    agreement = Series("validation", "orange", course.evaluation_points("val_agreement")[0], marked=True)
    charts = [
        Chart("Loss", "weighted parts, training", losses, from_zero=True),
        Chart("Agreement", "percent", (agreement,), ring=best, highest=100),
    ]
    remark = (
        "The loss of logits is a divergence in nats; that of features is the share of their variance that is not "
        "explained, 1 for a student that knows nothing. Steps with larger images are slower."
    )
    return curves(course, charts, config, remark=remark, ring=best is not None)


def _alike(result: Agreement, classes: Sequence[str], picture: Callable[[int], Image.Image]) -> str:
    """Show a few images with those that are nearest to them."""
    features = F.normalize(result.features - result.features.mean(0), dim=1)
    count = len(features)
    if count <= NEIGHBOURS:
        return ""
    rows = []
    for query in torch.linspace(0, count - 1, min(QUERIES, count)).long().tolist():
        similarity = features @ features[query]
        similarity[query] = -2
        nearest = similarity.topk(NEIGHBOURS)
        words = (
            f"{escape(classes[int(result.student[query])])}<br>teacher: {escape(classes[int(result.teacher[query])])}"
        )
        figures = [_thumbnail(picture(int(result.images[query])), words)]
        for other, value in zip(nearest.indices.tolist(), nearest.values.tolist(), strict=True):
            figures.append(_thumbnail(picture(int(result.images[other])), f"{value:.2f}"))
        rows.append(f"<div class='row'>{''.join(figures)}</div>")
    guide = (
        "<p class='guide'>Left an image that was not trained on, with what the student and the teacher take it for; "
        "beside it the most similar others to the student, with the cosine of their features.</p>"
    )
    note = small("Names are the teacher's classes. Images of other things get the name of whatever is nearest.")
    return section("What looks alike", f"{guide}<div class='alike'>{''.join(rows)}</div>{note}")


def _thumbnail(image: Image.Image, caption: str) -> str:
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f"<figure class='thumbnail'><img src='data:image/jpeg;base64,{data}' alt='' loading='lazy'>"
        f"<figcaption>{caption}</figcaption></figure>"
    )
