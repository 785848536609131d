"""What the page of a run that a teacher taught shows: how far the student agrees, and what looks alike to it."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from vision_longformer.images.thumbnails import Picture
from vision_longformer.reports.pictures import encode
from vision_longformer.reports.run import Run
from vision_longformer.training.distillation import Agreement
from vision_longformer.utils.words import counted, percent

QUERIES = 8  # images whose neighbours are shown
NEIGHBOURS = 5  # of each
THUMBNAIL = 104  # pixels of the longer side


def contents(run: Run, result: Agreement) -> dict[str, Any]:
    """Return what distillation.html shows."""
    total, same = len(result.images), int((result.teacher == result.student).sum())
    words = f"same first class for {same:,} of {counted(total, 'image')}; best epoch {run.progress.best_epoch}"
    divergence = f"{result.metrics()['divergence']:.2f}"
    losses = (
        run.curve("loss_logits", "logits", "blue"),
        run.curve("loss_features", "features", "orange"),
        run.curve("loss_labels", "labels", "green"),
    )
    agreement = run.curve("val_agreement", "validation", "orange")
    return {
        "best": run.folder.best,
        "images": total,
        "tiles": [
            ("Agreement with the teacher", percent(same, total), words),
            ("Divergence", divergence, "mean, in nats, from the teacher's probabilities"),
        ],
        "charts": [
            run.chart("Loss", "weighted parts, training", *losses, from_zero=True),
            run.chart("Agreement", "percent", agreement, ring="val_agreement", highest=100),
        ],
        "queries": _queries(result),
    }


def _queries(result: Agreement) -> list[dict[str, Any]]:
    """Return a few images with those that are nearest to them; none of too few images."""
    count = len(result.features)
    if count <= NEIGHBOURS:
        return []
    features = F.normalize(result.features - result.features.mean(0), dim=1)
    found = []
    for query in torch.linspace(0, count - 1, min(QUERIES, count)).long().tolist():
        similarity = features @ features[query]
        similarity[query] = -2
        cosines, others = (values.tolist() for values in similarity.topk(NEIGHBOURS))
        neighbours = [(_picture(result, other), cosine) for other, cosine in zip(others, cosines, strict=True)]
        student, teacher = (result.classes[int(taken[query])] for taken in (result.student, result.teacher))
        found.append(
            {
                "picture": _picture(result, query),
                "student": student,
                "teacher": teacher,
                "neighbours": neighbours,
            }
        )
    return found


def _picture(result: Agreement, number: int) -> Picture:
    image = result.picture(int(result.images[number])).convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return encode(image)
