"""A model that was trained, with what is needed to use it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

from torch import nn

from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.images import AS_STORED, MAX_PIXELS, Reading
from vision_longformer.weights import READING


class Result(Protocol):
    """What an evaluation found."""

    def metrics(self) -> dict[str, Any]:
        """Return measures by name, as files and logs have them."""


@dataclass(frozen=True)
class Trained(ABC):
    """A model with weights, and what is needed to use it. Each kind of task has a class of its own.

    Attributes:
        model: In evaluation mode.
        classes: Names of its outputs; None if the file does not say.
        preprocessing: "mean", "std", "interpolation", "crop_pct" and "size"; of detectors and segmentation models
            "side", "max_side" and "scale" in place of the last two (see `dense_loaders`); "reading" where images were
            read in another way than their files say; of detectors "min_score", above which objects are told of.
        task: What it was trained for.
        gives: What it says of an image: its classes, the objects in it, or the classes of its pixels.
        batch_size: Images that are evaluated at once where nobody says otherwise.
    """

    gives: ClassVar[Literal["classes", "objects", "pixels"]]
    batch_size: ClassVar[int] = 1
    size_key: ClassVar[str] = "side"  # of `preprocessing`

    model: nn.Module
    classes: tuple[str, ...] | None
    preprocessing: dict[str, Any]
    task: str

    @classmethod
    @abstractmethod
    def load(cls, path: Path, about: dict[str, Any]) -> Self:
        """Read a weight file.

        Args:
            path: The file.
            about: What `weights.describe` says of it.

        Raises:
            ValueError: Its contents do not fit together, or it is of another version of the library.
        """

    @abstractmethod
    def read(self, data: str | Path, split: str, *, skip_invalid: bool = False) -> Any:
        """Return the labelled images of a split, with their number as its length.

        Args:
            data: As for training.
            split: Which images.
            skip_invalid: Leave out annotations and images that cannot be used.

        Raises:
            ValueError: Data and weights do not fit each other, or the data cannot be used.
            FileNotFoundError: There is no such data.
        """

    @abstractmethod
    def evaluate(self, split: Any, how: EvaluationSetup, *, max_pixels: int = MAX_PIXELS) -> Result | None:
        """Measure on what `read` gives; None if `how.should_stop` said so in any process.

        Raises:
            ImageError: An image cannot be read.
        """

    @property
    def reading(self) -> Reading:
        """How images were read in training; where nothing says so, as many channels as the model takes."""
        if (values := self.preprocessing.get(READING)) is not None:
            return Reading.from_dict(values)
        channels = len(self.preprocessing["mean"])
        return AS_STORED if channels == 3 else Reading(channels=tuple(range(channels)))

    def with_reading(self, reading: Reading) -> Self:
        """Return the same for images that are read in another way.

        Raises:
            ValueError: They would have another number of channels than the model takes.
        """
        takes = len(self.preprocessing["mean"])
        if reading.model_channels != takes:
            raise ValueError(f"channels: the weights take {takes} of them, not {reading.model_channels}")
        return replace(self, preprocessing=self.preprocessing | {READING: reading.to_dict()})

    def at_size(self, size: int) -> Self:
        """Return the same for a side in pixels: of a classifier's square, or the shorter side that others see."""
        return replace(self, preprocessing=self.preprocessing | {self.size_key: size})

    def limit_detections(self, detections: int) -> None:
        """Change how many objects a detector gives of an image at most.

        Raises:
            ValueError: The number is below 1 or above a million, or the model is no detector.
        """
        raise ValueError(f"detections={detections}: is for detectors, not for {self.task.replace('_', ' ')}")
