"""Reading the weight files of every task."""

from __future__ import annotations

from pathlib import Path

from vision_longformer.training.classifiers import load_classifier
from vision_longformer.training.dense_models import load_dense
from vision_longformer.training.trained import Trained
from vision_longformer.weights import describe


def load_weights(path: str | Path) -> Trained:
    """Read a model that was trained or saved here.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no weight file.
    """
    path = Path(path)
    metadata = describe(path)
    if metadata.get("content") == "training":
        raise ValueError(
            f"{path}: is a checkpoint to continue training from; the weights to use are in "
            f"{path.with_name('best.safetensors')}"
        )
    if metadata.get("content") == "dense":
        return load_dense(path)
    return load_classifier(path)
