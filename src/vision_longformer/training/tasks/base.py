"""What a run learns: its data, model, loss and measure. The training loop knows nothing else of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vision_longformer.datasets.notes import remarks_on_notes
from vision_longformer.datasets.value_ranges import remark_on_range
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.run_folder import RunFolder
from vision_longformer.training.sampler import Sampler
from vision_longformer.training.trained import Result, Trained
from vision_longformer.utils.distributed import Processes
from vision_longformer.utils.steps import Steps


class Batch(Protocol):
    """Images and what is known of them."""

    @property
    def indices(self) -> list[int]:
        """Of each image among those of the split."""


@dataclass(frozen=True)
class Preparation:
    """Where a task prepares its data.

    Attributes:
        folder: Of the run.
        processes: Those that share the work.
        device: Where to compute.
        dtype: To compute in, with autocast; None for a model's own.
    """

    folder: RunFolder
    processes: Processes
    device: torch.device
    dtype: torch.dtype | None


class Task(ABC):
    """A task on the data of a run.

    Attributes:
        config: Of the run.
        classes: Names of what is told apart.
        training_images: Their number.
        validation_images: Their number.
        remarks: What a person should know of the data, a sentence each.
        best: The measure that chooses the best weights.
        unit: What belongs to a class: an image, an object, a pixel.
        trained: What `save_weights` writes is read and used as.
        takes_several_folders: Whether its data may be so.
    """

    best: ClassVar[str]
    unit: ClassVar[str] = "image"
    trained: ClassVar[type[Trained]]
    takes_several_folders: ClassVar[bool] = False
    config: TrainConfig
    classes: tuple[str, ...]
    training_images: int
    validation_images: int
    remarks: Sequence[str] = ()

    @abstractmethod
    def __init__(self, config: TrainConfig, data: Sequence[Path]) -> None:
        """Take note of the data of a run; `read` reads them. See `build_task` for what is raised."""

    def read(self) -> Steps[None]:
        """Read what of the data the attributes tell, which may take long; see `build_task` for what is raised."""
        yield from ()

    def prepare(self, where: Preparation) -> Steps[None]:
        """Do what takes long and is done once, before the model is built; what was done before a stop stays done.

        A run may be stopped wherever it says how far it is.

        Raises:
            ValueError: The data do not fit.
        """
        yield from ()

    @abstractmethod
    def check(self) -> Steps[None]:
        """Make sure that every image can be read, as far as `input.check` asks for it.

        Raises:
            ValueError: One cannot; names it.
        """

    @abstractmethod
    def files(self, indices: Sequence[int]) -> list[str]:
        """Return the names of training images."""

    @abstractmethod
    def digest(self) -> str:
        """Return a digest of the names and labels of the training images, in their order."""

    @abstractmethod
    def order(self, processes: Processes) -> Sampler:
        """Return the order in which a process takes the training images."""

    @abstractmethod
    def build_model(self) -> nn.Module:
        """Build the model, untrained."""

    @abstractmethod
    def start_from(self, model: nn.Module, checkpoint: str) -> list[str]:
        """Give a new model the weights of a file; return what was resized or left untrained, a sentence each."""

    @abstractmethod
    def training_data(self, model: nn.Module) -> Dataset[Any]:
        """Return the training images by `Key`, augmented; see `loaders.batches`."""

    @abstractmethod
    def losses(self, model: nn.Module, batch: Any, device: torch.device) -> dict[str, Tensor]:
        """Return the parts of the loss by name, each summed over the images of a batch."""

    @abstractmethod
    def evaluate(self, model: nn.Module, how: EvaluationSetup) -> Result | None:
        """Evaluate on the validation images; None if `how.should_stop` said so in any process.

        Raises:
            ImageError: An image cannot be read.
        """

    @abstractmethod
    def save_weights(self, model: nn.Module, path: Path) -> None:
        """Write a model so that `load_weights` needs nothing else."""


def remarks_on(config: TrainConfig, paths: Sequence[Path]) -> list[str]:
    """Return what a person should know of how training images are read, a sentence each."""
    reading = config.input.reading
    remarks = remarks_on_notes(paths, reading, max_pixels=config.input.max_pixels)
    if dark := remark_on_range(paths, reading, max_pixels=config.input.max_pixels):
        remarks.append(dark)
    if reading.model_channels != 3 and config.task == "classification" and config.augmentation.rand_augment:
        remarks.append("augmentation.rand_augment is for images of three channels, and is left out")
    return remarks
