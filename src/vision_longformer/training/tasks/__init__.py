"""What can be learned, by the name that recipes have for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vision_longformer.training.config import TrainConfig
from vision_longformer.training.tasks.base import Task


def build_task(config: TrainConfig, data: Path | Sequence[Path]) -> Task:
    """Read the data of a run, and return its task.

    Args:
        config: Of the run.
        data: Where they lie; distillation takes several folders, every other task one folder or file.

    Raises:
        ValueError: Data or options do not fit the task.
        FileNotFoundError: There is no such data.
    """
    folders = [data] if isinstance(data, Path) else list(data)
    if config.task == "distillation":
        from vision_longformer.training.tasks.distillation import Distillation

        return Distillation(config, folders)
    if len(folders) != 1:
        raise ValueError(f"data: {config.task} takes one folder, not {len(folders)}")
    folder = folders[0]
    match config.task:
        case "classification":
            from vision_longformer.training.tasks.classification import Classification

            return Classification(config, folder)
        case "detection" | "instance_segmentation":
            from vision_longformer.training.tasks.detection import Detection

            return Detection(config, folder)
        case "semantic_segmentation":
            from vision_longformer.training.tasks.semantic import Semantic

            return Semantic(config, folder)
        case other:
            raise AssertionError(other)
