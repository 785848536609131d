"""Classification: the class of an image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vision_longformer.datasets.classification import check_images, read_split
from vision_longformer.datasets.loaders import Batch, Images, evaluation_transform, training_transform
from vision_longformer.evaluation.classification import Evaluation, evaluate
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.training.classification_loss import Objective
from vision_longformer.training.classifiers import build_model, preprocessing_of, save_weights, start_from
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.sampler import Sampler
from vision_longformer.training.tasks.base import Task
from vision_longformer.utils.distributed import Processes


class Classification(Task):
    """Class folders or a CSV file; see `datasets.classification`."""

    best = "top1"

    def __init__(self, config: TrainConfig, data: Path) -> None:
        self.config = config
        self.samples = read_split(data, "train")
        self.validation = read_split(data, "val", classes=self.samples.classes)
        self.classes = self.samples.classes
        self.training_images, self.validation_images = len(self.samples), len(self.validation)
        self.objective = Objective(config.augmentation, config.optimizer, num_classes=len(self.classes))

    def check(self) -> None:
        inputs = self.config.input
        decode = True if inputs.check == "decode" else None
        for split in (self.samples, self.validation):
            check_images(split.paths, decode=decode, max_pixels=inputs.max_pixels)

    def files(self, indices: Sequence[int]) -> list[str]:
        return [str(self.samples.paths[index]) for index in indices]

    def digest(self) -> str:
        lines = (f"{path.name}\t{label}\n" for path, label in zip(self.samples.paths, self.samples.labels, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def order(self, processes: Processes) -> Sampler:
        return Sampler.of(self.config, samples=len(self.samples), processes=processes)

    def build_model(self) -> nn.Module:
        return build_model(self.config.model, num_classes=len(self.classes), size=self.config.input.size)

    def start_from(self, model: nn.Module, checkpoint: str) -> list[str]:
        return start_from(model, checkpoint, classes=self.classes)

    def training_data(self, model: nn.Module) -> Dataset[Any]:
        inputs = self.config.input
        transform = training_transform(inputs, self.config.augmentation, **self._colours(model))
        return Images(self.samples, transform, seed=self.config.seed, max_pixels=inputs.max_pixels)

    def losses(self, model: nn.Module, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        return {"cross_entropy": self.objective(model, batch, device=device)}

    def evaluate(self, model: nn.Module, how: EvaluationSetup) -> Evaluation | None:
        inputs = self.config.input
        transform = evaluation_transform(
            size=inputs.size,
            crop_share=preprocessing_of(model, inputs)["crop_pct"],
            interpolation=inputs.interpolation,
            **self._colours(model),
        )
        return evaluate(model, self.validation, transform, how, max_pixels=inputs.max_pixels)

    def save_weights(self, model: nn.Module, path: Path) -> None:
        save_weights(model, path, options=self.config.model, inputs=self.config.input, classes=self.classes)

    def _colours(self, model: nn.Module) -> dict[str, Any]:
        preprocessing = preprocessing_of(model, self.config.input)
        return {"mean": preprocessing["mean"], "std": preprocessing["std"]}
