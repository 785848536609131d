"""How images become tensors: the part of a recipe that datasets read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from vision_longformer.utils import rules

if TYPE_CHECKING:
    from vision_longformer.images import Reading

Interpolation = Literal["bicubic", "bilinear", "nearest"]


def option(default: Any, help_text: str, rule: rules.Rule | None = None) -> Any:
    """Return a dataclass field with a help text, and a rule for its values."""
    metadata = {"help": help_text, "rule": rule}
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class InputOptions:
    """How images become tensors, in training and in evaluation."""

    size: int = option(
        224, "Side in pixels of the square that the model is trained and evaluated with.", rules.AT_LEAST_1
    )
    crop_share: float | None = option(
        None,
        "Share of the shorter side that evaluation crops: 0.875, and 0.922 from 384 pixels on, unless given.",
        rules.PART,
    )
    interpolation: Interpolation = option("bicubic", "How images are resized.")
    check: Literal["auto", "decode", "none"] = option(
        "auto", "Decode every image before training begins: auto does so up to a gigabyte of files."
    )
    max_pixels: int = option(500_000_000, "Refuse larger images.", rules.AT_LEAST_1)
    channels: tuple[int, ...] | None = option(
        None, "Channels to take, counted from 0; with two, or more than three, the model gets as many.", rules.CHANNELS
    )
    value_range: tuple[float, float] | None = option(
        None, "Stored values that become 0 and 1, such as [0, 4095] for 12 bits in 16; by default what their type says."
    )
    level: int = option(0, "Of the pyramid of a slide or TIFF; 0 is full resolution.", rules.NOT_NEGATIVE)
    mpp: float | None = option(
        None, "Micrometres a pixel: the next finer level of a slide or TIFF is resampled to that.", rules.ABOVE_0
    )
    magnification: float | None = option(
        None, "Of a slide, in place of mpp: 20 for what an objective of 20× shows.", rules.ABOVE_0
    )
    tissue: bool = option(False, "Take bare glass, around the tissue of a slide, for missing.")

    @property
    def reading(self) -> Reading:
        """How images are read.

        Raises:
            ValueError: A number is out of range.
        """
        from vision_longformer.images import Reading  # takes long, and help on options needs none

        return Reading(self.level, self.channels, self.value_range, self.mpp, self.magnification, self.tissue)


@dataclass(frozen=True)
class DenseOptions:
    """Detection and segmentation: what is built on the backbone, and the size of images. Classification has none."""

    head: dict[str, Any] = option(
        {}, "Settings of RetinaNet, Mask R-CNN or the semantic head, such as {pyramid_width: 64}."
    )
    labels: Literal["auto", "coco", "geojson", "index", "instances"] = option(
        "auto",
        "SPLIT.json (coco), polygons (geojson), or label images of objects (instances) or classes (index); auto takes "
        "the first there is.",
    )
    class_name: str = option(
        "object", "Of the objects of label images, which have one class, and of polygons that say none."
    )
    label_values: tuple[int, ...] | None = option(
        None, "Value of each class in index images, such as [0, 255]; by default 0, 1, 2 and so on.", rules.LABEL_VALUES
    )
    sides: tuple[int, ...] | None = option(
        (800,),
        "One becomes the shorter side of a training image, the last that of evaluation; null keeps the image's.",
        rules.SIDES,
    )
    max_side: int = option(1333, "The longer side is at most so long, where there are sides.", rules.AT_LEAST_1)
    scale: tuple[float, float] = option((1.0, 1.0), "Range of a further random factor in training.", rules.RANGE)
    crop: int | None = option(
        None, "Side in pixels of a random square that training cuts out of larger images.", rules.AT_LEAST_1
    )
    window: int | None = option(
        None,
        "Side in pixels of windows of large images that are read in place of whole ones: random, in evaluation a grid.",
        rules.AT_LEAST_1,
    )
    windows_per_epoch: int | None = option(
        None, "Windows of an epoch; by default as many as would cover what is labelled.", rules.AT_LEAST_1
    )
    window_sampling: Literal["classes", "uniform"] = option(
        "classes", "classes draws each class equally often, and then where it lies; uniform draws any labelled place."
    )
    class_weights: str | tuple[float, ...] | None = option(
        None,
        "Semantic segmentation: weight of each class in the loss, such as [1, 5]; balanced weighs classes by how rare "
        "their pixels are.",
        rules.CLASS_WEIGHTS,
    )
    skip_invalid: bool = option(False, "Leave out annotations and images that cannot be used, and count them.")


@dataclass(frozen=True)
class AugmentationOptions:
    """How training images vary. Detection and segmentation have flips and colour jitter alone."""

    crop: Literal["resized", "plain"] = option(
        "resized", "resized: a random part, of random size and shape; plain: a random square of the resized image."
    )
    crop_scale: tuple[float, float] = option(
        (0.08, 1.0), "Range of the share of the area that random crops take.", rules.RANGE
    )
    crop_ratio: tuple[float, float] = option((0.75, 4 / 3), "Range of the aspect ratio of random crops.", rules.RANGE)
    horizontal_flip: float = option(0.5, "Probability of a flip.", rules.SHARE)
    vertical_flip: float = option(0.0, "Probability of an upside-down flip.", rules.SHARE)
    rand_augment: str | None = option(
        "rand-m9-mstd0.5-inc1", "timm's description of RandAugment; null for none.", rules.RAND_AUGMENT
    )
    color_jitter: float = option(0.0, "Strength of colour jitter, where RandAugment is off.", rules.NOT_NEGATIVE)
    mixup: float = option(0.8, "Alpha of Mixup; 0 for none.", rules.NOT_NEGATIVE)
    cutmix: float = option(1.0, "Alpha of CutMix; 0 for none.", rules.NOT_NEGATIVE)
    switch: float = option(0.5, "Probability of CutMix where both are on.", rules.SHARE)
    erasing: float = option(0.25, "Probability of random erasing.", rules.SHARE)
    repeats: int = option(1, "Repeated augmentation: how often a drawn image stands in an epoch.", rules.AT_LEAST_1)


class Recipe(Protocol):
    """What of a recipe decides how the images of dense prediction are augmented.

    Attributes:
        seed: Of the run.
        dense: Sizes of images.
        augmentation: What is changed.
    """

    @property
    def seed(self) -> int: ...

    @property
    def dense(self) -> DenseOptions: ...

    @property
    def augmentation(self) -> AugmentationOptions: ...
