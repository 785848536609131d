"""The page of a trained model, report.html: each task has its own, registered here by the task's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vision_longformer.reports.classification_page import ClassificationPage
from vision_longformer.reports.detection_page import DetectionPage
from vision_longformer.reports.distillation_page import DistillationPage
from vision_longformer.reports.pages import Page, write_page
from vision_longformer.reports.run import Run
from vision_longformer.reports.semantic_page import SemanticPage
from vision_longformer.training.checkpoints import Progress
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.run_folder import RunFolder

PAGES: dict[str, Callable[[Run, Any], Page]] = {  # of a run, and of the result of its best weights
    "classification": ClassificationPage,
    "detection": DetectionPage,
    "instance_segmentation": DetectionPage,
    "semantic_segmentation": SemanticPage,
    "distillation": DistillationPage,
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
    write_page(folder.report, PAGES[config.task](Run.read(folder, config, progress), result))
