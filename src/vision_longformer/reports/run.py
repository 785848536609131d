"""What the pages of all runs tell: how long and on what a model was trained, and how its loss went."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from vision_longformer.reports.charts import Chart, Colour, Place, Series, curve, points_of, range_of
from vision_longformer.training.checkpoints import Progress
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.recipes import write_recipe
from vision_longformer.training.run_folder import RunFolder
from vision_longformer.utils.words import counted, duration

Lines = Sequence[dict[str, Any]]  # of metrics.jsonl
MAX_ROWS = 100  # of a table of classes


class Tile(NamedTuple):
    """A number with its name and a remark."""

    name: str
    value: str
    remark: str


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
        return cls(
            folder,
            config,
            progress,
            about if isinstance(about, dict) else {},
            [line for line in lines if "loss" in line],
            [line for line in lines if "loss" not in line],
        )

    # --- words ------------------------------------------------------------------------------------------------

    @property
    def trained_for(self) -> str:
        """How long and on how many images the model was trained."""
        on = f" on {counted(self.about['images'], 'image')}" if "images" in self.about else ""
        return f"trained for {counted(self.config.schedule.epochs, 'epoch')}{on}"

    @property
    def tiles(self) -> list[Tile]:
        """What the training took."""
        taken = f"{self.progress.step:,} steps, evaluations not counted"
        time = Tile("Training time", duration(self.progress.seconds), taken)
        if "parameters" not in self.about:
            return [time]
        return [Tile("Parameters", f"{self.about['parameters'] / 1e6:,.2f} M", self._machine), time]

    @property
    def _machine(self) -> str:
        about = self.about
        words = [f"on {about['device']}"] if "device" in about else []
        if about.get("device") == "cpu" and "threads" in about:
            words.append(counted(about["threads"], "thread"))
        if about.get("processes", 1) > 1:
            words.append(counted(about["processes"], "process"))
        return ", ".join(words)

    @property
    def recipe(self) -> str:
        """The whole configuration."""
        return write_recipe(self.config)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Names and values of what is known of the machine and of versions."""
        told = {key: value for key, value in self.about.items() if key not in ("classes", "versions")}
        every = [*told.items(), *self.about.get("versions", {}).items()]
        return [(str(key).replace("_", " "), str(value)) for key, value in every]

    # --- charts -----------------------------------------------------------------------------------------------

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

    @property
    def charts(self) -> list[Chart]:
        """The learning rate and the speed."""
        rate, speed = self.curve("learning_rate"), self.curve("images_per_second")
        return [
            self.chart("Learning rate", "largest of all parameters", rate, from_zero=True),
            self.chart("Speed", "images a second", speed, from_zero=True),
        ]

    @property
    def notes(self) -> list[str]:
        """Sentences on how the charts show what was logged."""
        logged = (self.steps, self.evaluations)
        group, val_group = (points_of((line["epoch"], 0.0) for line in lines)[1] for lines in logged)
        notes = []
        if not self.steps:
            notes.append("No training step was logged: logging.every_steps is larger than their number.")
        if group > 1:
            notes.append(f"Lines show means of {group} logged steps, bands the lowest and highest of them.")
        if val_group > 1:
            notes.append(f"Of the many evaluations, means of {val_group} are shown.")
        return notes
