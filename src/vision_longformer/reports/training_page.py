"""The page of a trained model, report.html: each task has its own, registered here by the task's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from vision_longformer.reports import classification_page, detection_page, distillation_page, semantic_page
from vision_longformer.reports.charts import points_of
from vision_longformer.reports.pages import write_page
from vision_longformer.reports.run import Run, Tile
from vision_longformer.training.checkpoints import Progress
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.recipes import write_recipe
from vision_longformer.training.run_folder import RunFolder
from vision_longformer.utils.words import counted, duration


class TaskPage(NamedTuple):
    """A template, and what gives it what it shows of a run and of the result of its best weights."""

    template: str
    contents: Callable[[Run, Any], dict[str, Any]]


PAGES = {
    "classification": TaskPage("classification.html", classification_page.contents),
    "detection": TaskPage("detection.html", detection_page.contents),
    "instance_segmentation": TaskPage("detection.html", detection_page.contents),
    "semantic_segmentation": TaskPage("semantic.html", semantic_page.contents),
    "distillation": TaskPage("distillation.html", distillation_page.contents),
}


def write_training_page(folder: RunFolder, result: Any, config: TrainConfig, progress: Progress) -> None:
    """Write report.html.

    Args:
        folder: Of the run; its metrics.jsonl and run.json are read.
        result: What the task's evaluation found of the best weights.
        config: Of the run.
        progress: At its end.

    Raises:
        OSError: The disk is full, or the place cannot be written; a previous report is as it was.
    """
    run, page = Run.read(folder, config, progress), PAGES[config.task]
    own = page.contents(run, result)
    on = f" on {counted(run.about['images'], 'image')}" if "images" in run.about else ""
    charts = [
        *own.pop("charts"),
        run.chart("Learning rate", "largest of all parameters", run.curve("learning_rate"), from_zero=True),
        run.chart("Speed", "images a second", run.curve("images_per_second"), from_zero=True),
    ]
    every = {key: value for key, value in run.about.items() if key not in ("classes", "versions")}
    shown = {
        "config": config,
        "best_epoch": progress.best_epoch,
        "trained_for": f"trained for {counted(config.schedule.epochs, 'epoch')}{on}",
        "tiles": own.pop("tiles") + _tiles(run),
        "charts": [chart for chart in charts if not chart.is_empty],
        "notes": _notes(run),
        "recipe": write_recipe(config),
        "facts": every | run.about.get("versions", {}),
    }
    write_page(folder.report, page.template, shown | own)


def _tiles(run: Run) -> list[Tile]:
    """Return what the training took."""
    about, taken = run.about, f"{run.progress.step:,} steps, evaluations not counted"
    time = ("Training time", duration(run.progress.seconds), taken)
    if "parameters" not in about:
        return [time]
    words = [f"on {about['device']}"] if "device" in about else []
    if about.get("device") == "cpu" and "threads" in about:
        words.append(counted(about["threads"], "thread"))
    if about.get("processes", 1) > 1:
        words.append(counted(about["processes"], "process"))
    return [("Parameters", f"{about['parameters'] / 1e6:,.2f} M", ", ".join(words)), time]


def _notes(run: Run) -> list[str]:
    """Return sentences on how the charts show what was logged."""
    logged = (run.steps, run.evaluations)
    group, val_group = (points_of((line["epoch"], 0.0) for line in lines)[1] for lines in logged)
    notes = []
    if not run.steps:
        notes.append("No training step was logged: logging.every_steps is larger than their number.")
    if group > 1:
        notes.append(f"Lines show means of {group} logged steps, bands the lowest and highest of them.")
    if val_group > 1:
        notes.append(f"Of the many evaluations, means of {val_group} are shown.")
    return notes
