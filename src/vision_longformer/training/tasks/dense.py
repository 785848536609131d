"""What detection and segmentation have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn
from torch.utils.data import Dataset

from vision_longformer.datasets.classification import check_images
from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.dense_loaders import DenseImages, training_scale
from vision_longformer.datasets.semantic import SemanticSplit
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.dense_models import (
    Builder,
    build_dense_model,
    load_dense,
    preprocessing_of,
    save_dense,
    start_dense_from,
)
from vision_longformer.training.sampler import Sampler
from vision_longformer.training.tasks.base import Task, remarks_on
from vision_longformer.training.trained import Trained
from vision_longformer.utils.distributed import Processes


class DenseTrained(Trained):
    """A trained model for images of any size.

    Attributes:
        build: Its builder.
    """

    build: ClassVar[Builder]

    @classmethod
    def load(cls, path: Path, about: dict[str, Any]) -> Self:
        return cls(*load_dense(path, about, cls.build), about["task"])


class DenseTask(Task):
    """A task on images of any size.

    Attributes:
        training: Its images.
        validation: Its images.
        learned: "boxes", "masks" or "semantic".
    """

    learned: ClassVar[str]
    trained: ClassVar[type[DenseTrained]]

    def __init__(
        self,
        config: TrainConfig,
        training: CocoSplit | SemanticSplit,
        validation: CocoSplit | SemanticSplit,
        classes: tuple[str, ...],
    ) -> None:
        self.config, self.training, self.validation, self.classes = config, training, validation, classes
        self.training_images, self.validation_images = len(training), len(validation)
        self.preprocessing = preprocessing_of(config)
        sizes = [(height, width) for height, width in training.sizes.tolist()]
        self.preprocessing["scale"] = training_scale(sizes, self.preprocessing)
        self.remarks = [
            f"{split}: {count} left out ({reason})"
            for split, images in (("train", training), ("val", validation))
            for reason, count in images.skipped.items()
        ]

    def check(self) -> None:
        inputs = self.config.input
        decode = True if inputs.check == "decode" else None
        for split in (self.training, self.validation):
            check_images(
                [path_of(split, index) for index in range(len(split))],
                decode=decode,
                max_pixels=inputs.max_pixels,
                reading=split.reading,
            )
        paths = [path_of(self.training, index) for index in range(len(self.training))]
        self.remarks = [*self.remarks, *remarks_on(self.config, paths)]

    def files(self, indices: Sequence[int]) -> list[str]:
        return [str(path_of(self.training, index)) for index in indices]

    def order(self, processes: Processes) -> Sampler:
        return Sampler.of(self.config, samples=len(self.training), processes=processes, sizes=self.training.sizes)

    def build_model(self) -> nn.Module:
        return build_dense_model(self.config, self.trained.build, num_classes=len(self.classes))

    def start_from(self, model: nn.Module, checkpoint: str) -> list[str]:
        return start_dense_from(model, checkpoint)

    def training_data(self, model: nn.Module) -> Dataset[Any]:
        return DenseImages(
            self.training,
            self.config,
            self.preprocessing,
            learned=self.learned,
            max_pixels=self.config.input.max_pixels,
        )

    def evaluate(self, model: nn.Module, how: EvaluationSetup) -> Any:
        trained = self.trained(model, self.classes, self.preprocessing, self.config.task)
        return trained.evaluate(self.validation, how, max_pixels=self.config.input.max_pixels)

    def save_weights(self, model: nn.Module, path: Path) -> None:
        save_dense(model, path, config=self.config, classes=self.classes, preprocessing=self.preprocessing)


def path_of(split: CocoSplit | SemanticSplit, index: int) -> Path:
    """Return the file of an image."""
    return split.path(index) if isinstance(split, CocoSplit) else split.folder / split.images[index]
