"""The page of a run that a teacher taught: how far the student agrees with it, and what looks alike to the student."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional as F

from vision_longformer.images.thumbnails import Picture
from vision_longformer.reports.charts import Chart
from vision_longformer.reports.pictures import encode
from vision_longformer.reports.run import Run, Tile
from vision_longformer.training.distillation import Agreement
from vision_longformer.utils.words import counted, percent

QUERIES = 8  # images whose neighbours are shown
NEIGHBOURS = 5  # of each
THUMBNAIL = 104  # pixels of the longer side


class Query(NamedTuple):
    """An image, what it was taken for, and the images most similar to it with the cosine of both features."""

    picture: Picture
    student: str
    teacher: str
    neighbours: list[tuple[Picture, float]]


@dataclass(frozen=True)
class DistillationPage:
    """What the page shows.

    Attributes:
        run: The run.
        result: Of its best weights.
    """

    run: Run
    result: Agreement
    template = "distillation.html"

    @property
    def tiles(self) -> list[Tile]:
        """The main numbers."""
        total, same = len(self.result.images), int((self.result.teacher == self.result.student).sum())
        words = f"same first class for {same:,} of {counted(total, 'image')}; best epoch {self.run.progress.best_epoch}"
        divergence = f"{self.result.metrics()['divergence']:.2f}"
        return [
            Tile("Agreement with the teacher", percent(same, total), words),
            Tile("Divergence", divergence, "mean, in nats, from the teacher's probabilities"),
        ]

    @property
    def charts(self) -> list[Chart]:
        """How the run went."""
        run = self.run
        losses = (
            run.curve("loss_logits", "logits", "blue"),
            run.curve("loss_features", "features", "orange"),
            run.curve("loss_labels", "labels", "green"),
        )
        agreement = run.curve("val_agreement", "validation", "orange")
        return [
            run.chart("Loss", "weighted parts, training", *losses, from_zero=True),
            run.chart("Agreement", "percent", agreement, ring="val_agreement", highest=100),
        ]

    @property
    def queries(self) -> list[Query]:
        """A few images with those that are nearest to them; none of too few images."""
        result, count = self.result, len(self.result.features)
        if count <= NEIGHBOURS:
            return []
        features = F.normalize(result.features - result.features.mean(0), dim=1)
        found = []
        for query in torch.linspace(0, count - 1, min(QUERIES, count)).long().tolist():
            similarity = features @ features[query]
            similarity[query] = -2
            cosines, others = (values.tolist() for values in similarity.topk(NEIGHBOURS))
            neighbours = [(self._picture(other), cosine) for other, cosine in zip(others, cosines, strict=True)]
            student, teacher = (result.classes[int(taken[query])] for taken in (result.student, result.teacher))
            found.append(Query(self._picture(query), student, teacher, neighbours))
        return found

    def _picture(self, number: int) -> Picture:
        image = self.result.picture(int(self.result.images[number])).convert("RGB")
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        return encode(image)
