"""What can be learned, by the name that recipes have for it.

A task is a file: how it trains (`base.Task`), and how its trained models are loaded, evaluated and used (`Trained`).
Files are imported once their task is wanted.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vision_longformer.utils.steps import finish

if TYPE_CHECKING:  # the names alone are needed by the command line's help, which must not wait for PyTorch
    from vision_longformer.training.config import TrainConfig
    from vision_longformer.training.tasks.base import Task
    from vision_longformer.training.trained import Trained

# Name of a task: module and class.
TASKS = {
    "classification": ("classification", "Classification"),
    "detection": ("detection", "Detection"),
    "instance_segmentation": ("detection", "InstanceSegmentation"),
    "semantic_segmentation": ("semantic", "Semantic"),
    "distillation": ("distillation", "Distillation"),
}

# Name of a task that is learned elsewhere than by `vil train`: module, and class of its trained models.
LEARNED_ELSEWHERE = {"stroke_segmentation": ("strokes", "StrokeModel")}  # on the page of `vil explore`


def task_class(name: str) -> type[Task]:
    """Return the class of a task in `TASKS`."""
    module, kind = TASKS[name]
    found: type[Task] = getattr(importlib.import_module(f"{__name__}.{module}"), kind)
    return found


def trained_class(name: str) -> type[Trained]:
    """Return the class of the trained models of a task in `TASKS` or `LEARNED_ELSEWHERE`."""
    if name in TASKS:
        return task_class(name).trained
    module, kind = LEARNED_ELSEWHERE[name]
    found: type[Trained] = getattr(importlib.import_module(f"{__name__}.{module}"), kind)
    return found


def build_task(config: TrainConfig, data: Path | Sequence[Path]) -> Task:
    """Read the data of a run, and return its task. See `choose_task`."""
    task = choose_task(config, data)
    finish(task.read())
    return task


def choose_task(config: TrainConfig, data: Path | Sequence[Path]) -> Task:
    """Return the task of a run, whose `read` must be called before anything else.

    Args:
        config: Of the run.
        data: Where they lie; distillation takes several folders, every other task one folder or file.

    Raises:
        ValueError: Data or options do not fit the task.
        FileNotFoundError: There is no such data.
    """
    folders = [data] if isinstance(data, Path) else list(data)
    kind = task_class(config.task)
    if len(folders) != 1 and not kind.takes_several_folders:
        raise ValueError(f"data: {config.task} takes one folder, not {len(folders)}")
    return kind(config, folders)
