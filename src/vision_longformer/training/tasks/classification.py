"""Classification: the class of an image. Models of this library and of timm alike."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vision_longformer.datasets.checks import absent_classes, checking_images, only_class
from vision_longformer.datasets.classification import Samples, read_split
from vision_longformer.datasets.loaders import Batch, Images, evaluation_transform, training_transform
from vision_longformer.evaluation.classification import Evaluation, evaluate
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.images import MAX_PIXELS, Raster
from vision_longformer.timm_interface import normalisation
from vision_longformer.training.classification_loss import Objective
from vision_longformer.training.classifiers import (
    build_model,
    load_timm,
    preprocessing_of,
    save_weights,
    start_from,
)
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.sampler import Sampler
from vision_longformer.training.tasks.base import Task, remarks_on
from vision_longformer.training.trained import Trained
from vision_longformer.utils.distributed import Processes
from vision_longformer.utils.steps import Steps
from vision_longformer.weights import PREPROCESSING, READING, load, pretrained_cfg_of


class Classifier(Trained):
    """A trained classifier."""

    gives = "classes"
    batch_size = 32
    size_key = "size"

    @classmethod
    def load(cls, path: Path, about: dict[str, Any]) -> Self:
        if about.get("content") == "timm":
            return cls(*load_timm(path, about), "classification")
        model = load(path)
        description = pretrained_cfg_of(model)
        names = description.get("label_names")
        preprocessing = {key: description[key] for key in (*PREPROCESSING, READING) if key in description}
        preprocessing |= {"size": min(model.config.image_size)}
        preprocessing["mean"], preprocessing["std"] = normalisation(model)
        return cls(model, None if names is None else tuple(names), preprocessing, "classification")

    def read(self, data: str | Path, split: str, *, skip_invalid: bool = False) -> Samples:
        samples = read_split(data, split, classes=self.classes, reading=self.reading)
        known, found = self.model.num_classes, len(samples.classes)
        if known != found:
            raise ValueError(f"the weights have {known or 'no'} classes, without names, and {data} has {found}")
        return samples

    def evaluate(self, split: Samples, how: EvaluationSetup, *, max_pixels: int = MAX_PIXELS) -> Evaluation | None:
        return evaluate(self.model.to(how.device), split, self.transform(), how, max_pixels=max_pixels)

    def transform(self) -> Callable[[Raster], Tensor]:
        """Return what turns an image into the model's input."""
        how = self.preprocessing
        colours = {"mean": how["mean"], "std": how["std"]}
        transform: Callable[[Raster], Tensor] = evaluation_transform(
            size=how["size"], crop_share=how["crop_pct"], interpolation=how["interpolation"], **colours
        )
        return transform


class Classification(Task):
    """Class folders or a CSV file; see `datasets.classification`."""

    best = "top1"
    trained = Classifier

    def __init__(self, config: TrainConfig, data: Sequence[Path]) -> None:
        self.config, reading = config, config.input.reading
        self.samples = read_split(data[0], "train", reading=reading)
        self.validation = read_split(data[0], "val", classes=self.samples.classes, reading=reading)
        self.classes = self.samples.classes
        self.training_images, self.validation_images = len(self.samples), len(self.validation)
        counts = {name: split.counts() for name, split in (("train", self.samples), ("val", self.validation))}
        about = only_class(self.classes) + absent_classes(counts, self.unit)
        self.remarks = [*self.samples.remarks, *self.validation.remarks, *about]
        self.objective = Objective(config.augmentation, config.optimizer, num_classes=len(self.classes))

    def check(self) -> Steps[None]:
        inputs = self.config.input
        paths = [*self.samples.paths, *self.validation.paths]
        decode = {"auto": None, "decode": True, "none": False}[inputs.check]
        yield from checking_images(paths, decode=decode, max_pixels=inputs.max_pixels, reading=inputs.reading)
        if decode is not False:
            self.remarks = [*self.remarks, *remarks_on(self.config, self.samples.paths)]

    def files(self, indices: Sequence[int]) -> list[str]:
        return [str(self.samples.paths[index]) for index in indices]

    def digest(self) -> str:
        lines = (f"{path.name}\t{label}\n" for path, label in zip(self.samples.paths, self.samples.labels, strict=True))
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def order(self, processes: Processes) -> Sampler:
        return Sampler.of(self.config, samples=len(self.samples), processes=processes)

    def build_model(self) -> nn.Module:
        inputs = self.config.input
        return build_model(
            self.config.model,
            num_classes=len(self.classes),
            size=inputs.size,
            in_chans=inputs.reading.model_channels,
        )

    def start_from(self, model: nn.Module, checkpoint: str) -> list[str]:
        return start_from(model, checkpoint, classes=self.classes)

    def training_data(self, model: nn.Module) -> Dataset[Any]:
        inputs = self.config.input
        preprocessing = preprocessing_of(model, inputs)
        colours = {"mean": preprocessing["mean"], "std": preprocessing["std"]}
        transform = training_transform(inputs, self.config.augmentation, **colours)
        return Images(self.samples, transform, seed=self.config.seed, max_pixels=inputs.max_pixels)

    def losses(self, model: nn.Module, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        return {"cross_entropy": self.objective(model, batch, device=device)}

    def evaluate(self, model: nn.Module, how: EvaluationSetup) -> Evaluation | None:
        inputs = self.config.input
        classifier = Classifier(model, self.classes, preprocessing_of(model, inputs), self.config.task)
        return classifier.evaluate(self.validation, how, max_pixels=inputs.max_pixels)

    def save_weights(self, model: nn.Module, path: Path) -> None:
        save_weights(model, path, options=self.config.model, inputs=self.config.input, classes=self.classes)
