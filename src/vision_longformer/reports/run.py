"""A finished run and its charts: what was logged while it went on, by epoch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from vision_longformer.reports.charts import Chart, Colour, Place, Series, curve, points_of, range_of
from vision_longformer.training.checkpoints import Progress
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.run_folder import RunFolder

MAX_ROWS = 100  # of a table of classes

Lines = Sequence[dict[str, Any]]  # of metrics.jsonl
Tile = tuple[str, str, str]  # the name of a number, the number, and a remark


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Its files.
        config: Its configuration.
        progress: At its end.
        about: What run.json says; nothing if it cannot be read: pages then leave it out.
        steps: Lines of metrics.jsonl on training steps.
        evaluations: Lines on evaluations.
    """

    folder: RunFolder
    config: TrainConfig
    progress: Progress
    about: dict[str, Any]
    steps: Lines
    evaluations: Lines

    @classmethod
    def read(cls, folder: RunFolder, config: TrainConfig, progress: Progress) -> Self:
        """Read run.json and metrics.jsonl; of lines that a continued run wrote twice, the later one counts."""
        try:
            about = json.loads(folder.about.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            about = {}
        once = {("loss" in line, line["step"]): line for line in folder.read_metrics()}
        lines = sorted(once.values(), key=lambda line: line["epoch"])
        steps, evaluations = ([line for line in lines if ("loss" in line) == of_step] for of_step in (True, False))
        return cls(folder, config, progress, about if isinstance(about, dict) else {}, steps, evaluations)

    def curve(self, name: str, label: str = "", colour: Colour = "blue", *, with_band: bool = True) -> Series:
        """Return a number of metrics.jsonl by epoch; names of evaluations begin with "val_"."""
        of_evaluations = name.startswith("val_")
        lines = self.evaluations if of_evaluations else self.steps
        points, _ = points_of((line["epoch"], line[name]) for line in lines if line.get(name) is not None)
        return curve(label, colour, points, marked=of_evaluations, with_band=with_band)

    def chart(
        self,
        title: str,
        remark: str,
        *series: Series,
        ring: str | None = None,
        from_zero: bool = False,
        highest: float | None = None,
    ) -> Chart:
        """Return a chart over epochs, with a ring where the best epoch has the number `ring`."""
        x = (0.0, float(self.config.schedule.epochs))
        y = range_of(series, from_zero=from_zero, highest=highest)
        return Chart(title, remark, series, x, y, ring=None if ring is None else self._best(ring))

    def _best(self, name: str) -> Place | None:
        """Return (epoch, value) of the best epoch; None if no line has it."""
        at = [line for line in self.evaluations if line["epoch"] == self.progress.best_epoch]
        return next(((line["epoch"], line[name]) for line in at if line.get(name) is not None), None)
