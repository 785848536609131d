"""What a training run is, as a typed dataclass; a recipe is its YAML.

Every field has a help text, which the command line shows. Values are checked when a configuration is built.
"""

from __future__ import annotations

import builtins
import dataclasses
import math
import re
import typing
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from vision_longformer.datasets.options import AugmentationOptions, DenseOptions, InputOptions
from vision_longformer.datasets.options import option as _option
from vision_longformer.training.tasks import TASKS

Precision = Literal["float32", "bfloat16", "float16"]
OptimizerName = Literal["adamw", "qhm", "sgd"]


@dataclass(frozen=True)
class ModelOptions:
    """Which model is trained, and from which weights."""

    name: str = _option("vision_longformer_tiny", "Model: one of `vil models`, or any name of timm.")
    options: dict[str, Any] = _option({}, "Further options of create_model, such as {attention: performer}.")
    checkpoint: str | None = _option(None, "Weights to start from: a file of this library. Without, from scratch.")
    drop_rate: float = _option(0.0, "Dropout.")
    drop_path_rate: float = _option(0.1, "Drop path of the last block; grows linearly from 0 at the first.")


@dataclass(frozen=True)
class DistillationOptions:
    """Pretraining on images without labels, by a teacher. Other tasks have none of it."""

    teacher: str | None = _option(
        None, "A weight file of this library, a folder in timm's hub layout, or a name of timm."
    )
    teacher_size: int | None = _option(None, "Side in pixels at which the teacher sees a view; by default its own.")
    runtime: Literal["pytorch", "openvino"] = _option(
        "pytorch", "What the teacher runs in; OpenVINO, once installed, is several times as fast on CPUs."
    )
    views: int = _option(
        4, "Views of each image that the teacher is asked about once; 0 asks about new ones at every step."
    )
    sides: tuple[int, ...] = _option((64, 72, 80), "Sides in pixels of the student's images; a batch draws one.")
    final_sides: tuple[int, ...] = _option((112, 128, 144, 160), "Those of the last part of the run.")
    final_share: float = _option(0.15, "Share of the epochs that have them.")
    stored_side: int = _option(192, "Largest side in pixels at which images are kept.")
    components: int = _option(256, "Principal components of the teacher's features that the student learns.")
    temperature: float = _option(1.0, "That logits are divided by.")
    logits_weight: float = _option(1.0, "Weight of the teacher's logits in the loss.")
    features_weight: float = _option(1.0, "Weight of the teacher's features.")
    labels_weight: float = _option(0.0, "Weight of labels, where a folder has nothing but folders of classes.")
    validation_share: float = _option(0.02, "Share of the images that is kept for evaluation, 2,000 at most.")
    cache: str | None = _option(None, "Folder of decoded images and the teacher's answers; by default in the run's.")


@dataclass(frozen=True)
class OptimizerOptions:
    """How weights follow gradients."""

    name: OptimizerName = _option("adamw", "adamw; qhm, quasi-hyperbolic momentum; or sgd with Nesterov momentum.")
    learning_rate: float = _option(5e-4, "Largest learning rate, of the whole batch (it is not scaled).")
    weight_decay: float = _option(0.05, "Weight decay; not of norms, position tables, global tokens and head bias.")
    betas: tuple[float, float] = _option((0.9, 0.999), "Of AdamW.")
    momentum: float = _option(0.9, "Of SGD, and beta of QHM.")
    nu: float = _option(1.0, "Of QHM: share of the momentum in an update.")
    layer_decay: float = _option(1.0, "Factor of the learning rate from each layer to the one below it.")
    clip_norm: float | None = _option(None, "Largest norm of the gradient; longer ones are shortened to it.")
    label_smoothing: float = _option(0.1, "Share of the target spread over all classes.")
    ema_decay: float | None = _option(None, "Keep a moving average of the weights, and evaluate it.")


@dataclass(frozen=True)
class ScheduleOptions:
    """How long training goes on, and how the learning rate changes, step by step."""

    epochs: int = _option(300, "Passes through the training images.")
    warmup_epochs: float = _option(5.0, "Epochs in which the learning rate grows linearly.")
    warmup_factor: float = _option(0.002, "Share of the learning rate that warm-up starts from.")
    final_learning_rate: float = _option(1e-6, "Learning rate that the cosine ends at.")
    drops: tuple[float, ...] | None = _option(
        None, "Shares of the run after which the learning rate becomes a tenth, in place of the cosine."
    )
    random_shift: bool = _option(False, "Train windowed attention with one random neighbour chunk (section 3.3).")
    random_shift_share: float = _option(0.75, "Share of the epochs after which all neighbours are seen.")


@dataclass(frozen=True)
class ComputeOptions:
    """Where and how to compute."""

    batch_size: int = _option(256, "Images of one step, of all processes together.")
    accumulation: int = _option(1, "Parts that a step's images are cut into, one after the other, to save memory.")
    workers: int = _option(2, "Processes that read images, for each training process; 0 reads in the process itself.")
    device: str = _option("auto", "cpu, cuda, cuda:1; auto prefers a GPU.")
    threads: int | None = _option(None, "CPU threads; by default what PyTorch chooses.")
    precision: Precision = _option("float32", "Of the forward pass: float32, bfloat16 or float16 by autocast.")
    gradient_checkpointing: bool = _option(False, "Compute activations again in backward, to save memory.")
    checkpointed_stages: tuple[int, ...] | None = _option(
        None, "Stages, counted from 1, that gradient_checkpointing is for: the first ones save most; by default all."
    )
    compile: bool = _option(False, "Compile the model (torch.compile): faster steps on GPUs, once that is done.")
    deterministic: bool | None = _option(None, "Bit-identical repetition; by default on CPUs, not on GPUs.")


@dataclass(frozen=True)
class LoggingOptions:
    """What is written down, and how often."""

    every_steps: int = _option(10, "Steps between lines of metrics.jsonl.")
    evaluate_every_epochs: int = _option(1, "Epochs between evaluations; the last epoch is always evaluated.")
    checkpoint_minutes: float = _option(5.0, "Minutes between checkpoints within an epoch; each epoch ends with one.")
    tensorboard: bool = _option(False, "Write TensorBoard events too (needs the train extra).")


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    task: str = _option("classification", f"What is learned: {', '.join(TASKS)}.")
    seed: int = _option(0, "Of weights, order and augmentation.")
    model: ModelOptions = ModelOptions()
    input: InputOptions = InputOptions()
    dense: DenseOptions = DenseOptions()
    distillation: DistillationOptions = DistillationOptions()
    augmentation: AugmentationOptions = AugmentationOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    compute: ComputeOptions = ComputeOptions()
    logging: LoggingOptions = LoggingOptions()

    def __post_init__(self) -> None:
        for option in walk(self):
            _check_type(option)
        if self.task not in TASKS:
            raise ValueError(f"task={self.task!r}: must be one of {', '.join(map(repr, TASKS))}")
        for rule, paths in _RULES.items():
            for path in paths:
                value = read(self, path)
                if value is not None and not _ALLOWED[rule](value):
                    raise ValueError(f"{path}={value!r}: {rule}")
        self._check_reading()
        if self.compute.batch_size < self.compute.accumulation:
            raise ValueError(
                f"compute.accumulation={self.compute.accumulation}: cuts a batch of {self.compute.batch_size} images "
                "into more parts than it has images"
            )

    def _check_reading(self) -> None:
        """Check how images are read, and that what follows from the number of their channels fits."""
        if (self.input.channels, self.input.value_range, self.input.level) == (None, None, 0):
            channels = 3
        else:
            try:
                channels = self.input.reading.model_channels
            except ValueError as error:
                raise ValueError(f"input.{error}") from error
        stated = self.model.options.get("in_chans", channels)
        if stated != channels:
            raise ValueError(
                f"model.options={{in_chans: {stated}}}: the model takes {channels} channels, as many as input.channels "
                "chooses; leave in_chans out"
            )
        if channels != 3 and self.augmentation.color_jitter:
            raise ValueError(
                f"augmentation.color_jitter={self.augmentation.color_jitter}: is for images of three channels"
            )
        if channels != 3 and self.task == "distillation":
            raise ValueError(f"input.channels={self.input.channels}: distillation takes one channel or three")

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, lists, strings and numbers, as YAML and JSON can store them."""
        values = dataclasses.asdict(self)
        return {key: _plain(value) for key, value in values.items()}


def _are_distinct(numbers: tuple[Any, ...]) -> bool:
    """Tell whether there are numbers, whole ones from 0 on, each once."""
    whole = all(isinstance(number, int) and number >= 0 for number in numbers)
    return whole and len(set(numbers)) == len(numbers) > 0


# A rule, its condition, and the fields that it holds for.
_ALLOWED: dict[str, Any] = {
    "must be at least 1": lambda value: value >= 1,
    "must be at least 64": lambda value: value >= 64,
    "must not be negative": lambda value: value >= 0,
    "must be above 0": lambda value: value > 0,
    "must be above 0 and at most 1": lambda value: 0 < value <= 1,
    "must lie between 0 and 1": lambda value: 0 <= value <= 1,
    "must be from 0 up to, but not including, 1": lambda value: 0 <= value < 1,
    "must be two numbers from 0 up to, but not including, 1": lambda pair: all(0 <= value < 1 for value in pair),
    "must be timm's description of RandAugment, such as rand-m9-mstd0.5-inc1": lambda text: bool(
        re.fullmatch(r"rand(-(m|n|mmax|inc)\d+|-(mstd|p)\d+(\.\d+)?|-t\w+)*", text)
    ),
    "must be whole numbers from 1 on": lambda numbers: (
        len(numbers) > 0 and all(isinstance(number, int) and number >= 1 for number in numbers)
    ),
    "must be shares of the run, between 0 and 1, in ascending order": lambda shares: (
        all(0 < share < 1 for share in shares) and list(shares) == sorted(set(shares))
    ),
    "must be whole numbers from 0 on, each once": _are_distinct,
    "must be numbers of channels, counted from 0, each once": _are_distinct,
    "must be two numbers above 0, the smaller first": lambda pair: len(pair) == 2 and 0 < pair[0] <= pair[1],
}
_RULES: dict[str, tuple[str, ...]] = {
    "must be at least 1": (
        "input.size",
        "input.max_pixels",
        "dense.max_side",
        "dense.crop",
        "distillation.teacher_size",
        "distillation.components",
        "augmentation.repeats",
        "schedule.epochs",
        "compute.batch_size",
        "compute.accumulation",
        "compute.threads",
        "logging.every_steps",
        "logging.evaluate_every_epochs",
    ),
    "must not be negative": (
        "seed",
        "distillation.views",
        "distillation.logits_weight",
        "distillation.features_weight",
        "distillation.labels_weight",
        "augmentation.mixup",
        "augmentation.cutmix",
        "augmentation.color_jitter",
        "optimizer.weight_decay",
        "schedule.warmup_epochs",
        "schedule.final_learning_rate",
        "compute.workers",
        "input.level",
    ),
    "must be above 0": (
        "distillation.temperature",
        "optimizer.learning_rate",
        "optimizer.clip_norm",
        "logging.checkpoint_minutes",
    ),
    "must be above 0 and at most 1": ("input.crop_share", "optimizer.layer_decay"),
    "must lie between 0 and 1": (
        "distillation.final_share",
        "distillation.validation_share",
        "augmentation.horizontal_flip",
        "augmentation.vertical_flip",
        "augmentation.switch",
        "augmentation.erasing",
        "optimizer.nu",
        "schedule.warmup_factor",
        "schedule.random_shift_share",
    ),
    "must be from 0 up to, but not including, 1": (
        "model.drop_rate",
        "model.drop_path_rate",
        "optimizer.momentum",
        "optimizer.label_smoothing",
        "optimizer.ema_decay",
    ),
    "must be two numbers from 0 up to, but not including, 1": ("optimizer.betas",),
    "must be timm's description of RandAugment, such as rand-m9-mstd0.5-inc1": ("augmentation.rand_augment",),
    "must be whole numbers from 1 on": (
        "dense.sides",
        "distillation.sides",
        "distillation.final_sides",
        "compute.checkpointed_stages",
    ),
    "must be whole numbers from 0 on, each once": ("dense.label_values",),
    "must be numbers of channels, counted from 0, each once": ("input.channels",),
    "must be at least 64": ("distillation.stored_side",),
    "must be shares of the run, between 0 and 1, in ascending order": ("schedule.drops",),
    "must be two numbers above 0, the smaller first": (
        "augmentation.crop_scale",
        "augmentation.crop_ratio",
        "dense.scale",
    ),
}


class Option(NamedTuple):
    """An option of a configuration: its dotted path, type, help and value."""

    path: str
    kind: Any
    help: str
    value: Any


def walk(config: Any, prefix: str = "") -> list[Option]:
    """Return every option of a configuration."""
    found, kinds = [], get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            found += walk(value, f"{path}.")
        else:
            found.append(Option(path, kinds[field.name], field.metadata["help"], value))
    return found


def read(config: Any, path: str) -> Any:
    """Return the value at a dotted path."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _check_type(option: Option) -> None:
    kinds = get_args(option.kind) if isinstance(option.kind, UnionType) else (option.kind,)
    if not any(_is(kind, option.value) for kind in kinds):
        raise ValueError(f"{option.path}={option.value!r}: must be {type_in_words(option.kind)}")


def type_in_words(kind: Any) -> str:
    """Return what values of a type are, for people to read."""
    return " or ".join(_wording(part) for part in (get_args(kind) if isinstance(kind, UnionType) else (kind,)))


def _is(kind: Any, value: Any) -> bool:
    match get_origin(kind) or kind:
        case typing.Literal:
            return value in get_args(kind)
        case builtins.tuple:
            if not isinstance(value, tuple) or not all(_is(float, entry) for entry in value):
                return False
            return Ellipsis in get_args(kind) or len(value) == len(get_args(kind))
        case builtins.float:
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        case builtins.int:
            return isinstance(value, int) and not isinstance(value, bool)
        case other:
            return isinstance(value, other)


def _wording(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    if get_origin(kind) is tuple:
        return "a list of numbers" if Ellipsis in get_args(kind) else "two numbers"
    return words.get(kind, "a mapping")
