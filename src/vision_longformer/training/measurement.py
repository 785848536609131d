"""Measuring trained weights on the labelled images of a split, whatever they were trained for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vision_longformer.datasets.classification import read_split
from vision_longformer.datasets.coco import CocoSplit, read_coco
from vision_longformer.datasets.loaders import evaluation_transform
from vision_longformer.datasets.semantic import BACKGROUND, SemanticSplit, read_semantic
from vision_longformer.evaluation.classification import evaluate
from vision_longformer.evaluation.detection import evaluate_detector
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.evaluation.segmentation import evaluate_semantic
from vision_longformer.images import MAX_PIXELS
from vision_longformer.training.tasks.base import Result
from vision_longformer.training.trained import Trained


class Measurement:
    """Weights and the images that they are measured on.

    Args:
        trained: See `load_weights`.
        data: As for training.
        split: Which images.
        size: Side in pixels of the square that a classifier sees, or of the shorter side that others see; by default
            that of training.
        skip_invalid: Leave out annotations and images that cannot be used.

    Attributes:
        images: Their number.
        skipped: How many entries were left out, by reason.

    Raises:
        ValueError: Data and weights do not fit each other, or the data cannot be used.
        FileNotFoundError: There is no such data.
    """

    def __init__(
        self,
        trained: Trained,
        data: str | Path,
        split: str,
        *,
        size: int | None = None,
        skip_invalid: bool = False,
    ) -> None:
        key = "size" if trained.task == "classification" else "side"
        how = trained.preprocessing if size is None else trained.preprocessing | {key: size}
        self.trained = replace(trained, preprocessing=how)
        self.skipped: dict[str, int] = {}
        if trained.task == "classification":
            self.samples = read_split(data, split, classes=trained.classes)
            self.images = len(self.samples)
            _check_classes(trained, len(self.samples.classes), data)
        else:
            self.split = _read_dense(trained, Path(data), split, skip_invalid=skip_invalid)
            self.images, self.skipped = len(self.split), self.split.skipped

    def run(self, setup: EvaluationSetup) -> Result | None:
        """Measure; None if `setup.should_stop` said so.

        Raises:
            ImageError: An image cannot be read.
        """
        model, how = self.trained.model.to(setup.device), self.trained.preprocessing
        match self.trained.task:
            case "classification":
                transform = evaluation_transform(
                    size=how["size"],
                    crop_share=how["crop_pct"],
                    interpolation=how["interpolation"],
                    mean=how["mean"],
                    std=how["std"],
                )
                return evaluate(model, self.samples, transform, setup)
            case "semantic_segmentation":
                assert self.trained.classes is not None
                return evaluate_semantic(model, self.split, self.trained.classes, how, setup, max_pixels=MAX_PIXELS)
            case _:
                assert isinstance(self.split, CocoSplit)
                return evaluate_detector(model, self.split, how, setup, max_pixels=MAX_PIXELS)


def _read_dense(trained: Trained, data: Path, split: str, *, skip_invalid: bool) -> CocoSplit | SemanticSplit:
    assert trained.classes is not None
    annotations = data / f"{split}.json"
    classes, with_masks = trained.classes, trained.task != "detection"
    if trained.task == "semantic_segmentation":
        if classes[0] != BACKGROUND or not annotations.is_file():  # labels of objects begin with the background
            return read_semantic(data, split, classes=classes, skip_invalid=skip_invalid)
        classes = classes[1:]
    return read_coco(annotations, data / split, with_masks=with_masks, classes=classes, skip_invalid=skip_invalid)


def _check_classes(trained: Trained, found: int, data: str | Path) -> None:
    known = trained.model.num_classes
    if known != found:
        raise ValueError(f"the weights have {known or 'no'} classes, without names, and {data} has {found}")
