"""A run's report. (Being written.)"""

from __future__ import annotations

from vision_longformer.training.checkpoints import Progress
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.evaluation import Evaluation
from vision_longformer.training.run_folder import RunFolder


def write_report(folder: RunFolder, evaluation: Evaluation, config: TrainConfig, progress: Progress) -> None:
    """Write report.html."""
    folder.write_text(folder.report, f"<p>{evaluation.metrics()}</p>")
