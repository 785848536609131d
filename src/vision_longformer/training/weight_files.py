"""Reading the weight files of every task."""

from __future__ import annotations

from pathlib import Path

from vision_longformer.pretrained import find_weights
from vision_longformer.training.tasks import LEARNED_ELSEWHERE, TASKS, trained_class
from vision_longformer.training.trained import Trained
from vision_longformer.weights import describe


def load_weights(path: str | Path) -> Trained:
    """Read a model that was trained or saved here.

    Args:
        path: A weight file, or the name of weights of the package.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no weight file, or its task is unknown.
    """
    path = find_weights(path)
    about = describe(path)
    if about.get("content") == "training":
        raise ValueError(
            f"{path}: is a checkpoint to continue training from; the weights to use are in "
            f"{path.with_name('best.safetensors')}"
        )
    task = about.get("task", "classification")  # classifiers are saved without a task
    if task not in TASKS and task not in LEARNED_ELSEWHERE:
        known = ", ".join((*TASKS, *LEARNED_ELSEWHERE))
        raise ValueError(f"{path}: is of an unknown task, {task!r}; known are {known}")
    return trained_class(task).load(path, about)
