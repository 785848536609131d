"""What detection and segmentation have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn
from torch.utils.data import Dataset

from vision_longformer.datasets.checks import absent_classes, checking_images
from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.dense_loaders import DenseImages, training_scale
from vision_longformer.datasets.labels import Split, Wanted, What, class_counts, class_names, read_labels
from vision_longformer.datasets.window_loaders import WindowImages
from vision_longformer.datasets.window_sampling import Cells, WindowSampler, counted, grid, reading_cells
from vision_longformer.datasets.windows import windows_of
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
from vision_longformer.utils.steps import Steps, finish
from vision_longformer.utils.words import counted as counted_words


class DenseTrained(Trained):
    """A trained model for images of any size.

    Attributes:
        build: Its builder.
        needs: What it learns, and what is needed of labels to measure it.
    """

    build: ClassVar[Builder]
    needs: ClassVar[What]

    @classmethod
    def load(cls, path: Path, about: dict[str, Any]) -> Self:
        return cls(*load_dense(path, about, cls.build), about["task"])

    def read(self, data: str | Path, split: str, *, skip_invalid: bool = False) -> Split:
        wanted = Wanted(
            self.needs,
            classes=self.classes,
            skip_invalid=skip_invalid,
            read_labels=False,
            reading=self.reading,
        )
        wanted = self.labels_as_in_training(wanted)
        found = finish(read_labels(Path(data), split, wanted))
        if self.preprocessing.get("window") is None:
            return found
        side = max(1, int(self.preprocessing["window"]))
        cells = finish(reading_cells(found, side, max_pixels=wanted.max_pixels))
        return windows_of(found, grid(found, cells, side))

    def labels_as_in_training(self, wanted: Wanted) -> Wanted:
        """Return how labels are read, with what the weights say of it."""
        return wanted


class DenseTask(Task):
    """A task on images of any size.

    Attributes:
        training: Its images.
        validation: Its images, or the windows of a grid on them.
        cells: Where windows of training images are drawn; None where images are taken whole.
    """

    trained: ClassVar[type[DenseTrained]]
    training: Split
    validation: Split
    cells: Cells | None = None

    def __init__(self, config: TrainConfig, data: Sequence[Path]) -> None:
        self.config, self.data = config, data[0]

    def read(self) -> Steps[None]:
        wanted = self.wanted()
        self.training = yield from read_labels(self.data, "train", wanted)
        self.classes = class_names(self.training, wanted.what)
        self.validation = yield from read_labels(self.data, "val", replace(wanted, classes=self.classes))
        self._paths = [split.path(index) for split in (self.training, self.validation) for index in range(len(split))]
        if self.config.dense.window is not None:
            yield from self._cut_into_windows(self.config.dense.window, wanted)
        splits = {"train": self.training, "val": self.validation}
        self.training_images = self._samples()
        self.validation_images = len(self.validation)
        self.preprocessing = preprocessing_of(self.config)
        sizes = [(height, width) for height, width in self.training.sizes.tolist()]
        self.preprocessing["scale"] = training_scale(sizes, self.preprocessing)
        self.remarks = [*self.training.remarks, *self.validation.remarks]
        self.remarks += [
            f"{name}: {count} left out ({reason})"
            for name, split in splits.items()
            for reason, count in split.skipped.items()
        ]
        counts = {name: found for name, split in splits.items() if (found := class_counts(split)) is not None}
        self.remarks += absent_classes(counts, self.unit)
        if self.config.dense.window is not None:
            self.remarks.append(self._about_windows(self.config.dense.window))

    def _cut_into_windows(self, side: int, wanted: Wanted) -> Steps[None]:
        """Find where training windows are drawn, and cut validation images into a grid of windows."""
        most, found = self.config.input.max_pixels, list[tuple[Split, Cells]]()
        for split in (self.training, self.validation):
            cells = yield from reading_cells(split, side, max_pixels=most)
            if not cells.labelled.any():
                raise ValueError(f"{split.path(0)}: this and all other images of its split have no labelled pixel")
            found.append((counted(split, cells), cells))
        (self.training, self.cells), (validation, cells) = found
        self.validation = windows_of(validation, grid(validation, cells, side))

    def _samples(self) -> int:
        """Return how many training images or windows an epoch has."""
        window = self.config.dense.window
        if window is None or self.cells is None:
            return len(self.training)
        return self.config.dense.windows_per_epoch or -(-int(self.cells.labelled.sum()) // window**2)

    def _about_windows(self, side: int) -> str:
        return (
            f"windows of {side}×{side} pixels: {self.training_images} an epoch, drawn from "
            f"{counted_words(len(self.training), 'image')}; {self.validation_images} of a grid for evaluation"
        )

    def wanted(self) -> Wanted:
        """Return what is needed of labels, by the recipe."""
        dense, inputs = self.config.dense, self.config.input
        return Wanted(
            self.trained.needs,
            source=dense.labels,
            class_name=dense.class_name,
            label_values=dense.label_values,
            skip_invalid=dense.skip_invalid,
            read_labels=inputs.check != "none" and dense.window is None,
            max_pixels=inputs.max_pixels,
            reading=inputs.reading,
        )

    def check(self) -> Steps[None]:
        inputs = self.config.input
        paths, training = self._paths, self._paths[: len(self.training)]
        decode = {"auto": None, "decode": True, "none": False}[inputs.check]
        if self.cells is not None:  # images are not to be decoded as a whole
            yield from checking_images(paths, decode=False, max_pixels=inputs.max_pixels, reading=inputs.reading)
            self.remarks = [*self.remarks, *(remarks_on(self.config, training) if decode is not False else ())]
            return
        yield from checking_images(paths, decode=decode, max_pixels=inputs.max_pixels, reading=inputs.reading)
        if decode is not False:
            self.remarks = [*self.remarks, *remarks_on(self.config, training)]

    def files(self, indices: Sequence[int]) -> list[str]:
        return [str(self.training.path(index)) for index in indices]

    def order(self, processes: Processes) -> Sampler:
        sizes = self.training.sizes if self.cells is None else None  # windows are alike
        return Sampler.of(self.config, samples=self._samples(), processes=processes, sizes=sizes)

    def build_model(self) -> nn.Module:
        return build_dense_model(self.config, self.trained.build, num_classes=len(self.classes))

    def start_from(self, model: nn.Module, checkpoint: str) -> list[str]:
        return start_dense_from(model, checkpoint)

    def training_data(self, model: nn.Module) -> Dataset[Any]:
        about: dict[str, Any] = {"learned": self.trained.needs, "max_pixels": self.config.input.max_pixels}
        if self.cells is None:
            return DenseImages(self.training, self.config, self.preprocessing, **about)
        sampler = WindowSampler(
            self.cells,
            self.training.sizes,
            self.config.dense.window_sampling,
            of_objects=isinstance(self.training, CocoSplit),
        )
        return WindowImages(self.training, self.config, self.preprocessing, sampler=sampler, **about)

    def evaluate(self, model: nn.Module, how: EvaluationSetup) -> Any:
        trained = self.trained(model, self.classes, self.preprocessing, self.config.task)
        return trained.evaluate(self.validation, how, max_pixels=self.config.input.max_pixels)

    def save_weights(self, model: nn.Module, path: Path) -> None:
        save_dense(model, path, config=self.config, classes=self.classes, preprocessing=self.preprocessing)
