"""What can be learned, by the name that recipes have for it."""

from __future__ import annotations

from pathlib import Path

from vision_longformer.training.config import TrainConfig
from vision_longformer.training.tasks.base import Task


def build_task(config: TrainConfig, data: Path) -> Task:
    """Read the data of a run, and return its task.

    Raises:
        ValueError: Data or options do not fit the task.
        FileNotFoundError: There is no such data.
    """
    match config.task:
        case "classification":
            from vision_longformer.training.tasks.classification import Classification

            return Classification(config, data)
        case "detection" | "instance_segmentation":
            from vision_longformer.training.tasks.detection import Detection

            return Detection(config, data)
        case "semantic_segmentation":
            from vision_longformer.training.tasks.semantic import Semantic

            return Semantic(config, data)
