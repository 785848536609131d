"""What a training run is, as a typed dataclass; a recipe is its YAML.

Every field has a help text, which the command line shows. Values are checked when a configuration is built.
"""

from __future__ import annotations

import builtins
import dataclasses
import math
import typing
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from vision_longformer.datasets.options import AugmentationOptions, DenseOptions, InputOptions
from vision_longformer.datasets.options import option as _option
from vision_longformer.training.tasks import TASKS
from vision_longformer.utils import rules

Precision = Literal["float32", "bfloat16", "float16"]
OptimizerName = Literal["adamw", "qhm", "sgd"]


@dataclass(frozen=True)
class ModelOptions:
    """Which model is trained, and from which weights."""

    name: str = _option("vision_longformer_tiny", "Model: one of `vil models`, or any name of timm.")
    options: dict[str, Any] = _option({}, "Further options of create_model, such as {attention: performer}.")
    checkpoint: str | None = _option(None, "Weights to start from: a file of this library. Without, from scratch.")
    drop_rate: float = _option(0.0, "Dropout.", rules.RATE)
    drop_path_rate: float = _option(0.1, "Drop path of the last block; grows linearly from 0 at the first.", rules.RATE)


@dataclass(frozen=True)
class DistillationOptions:
    """Pretraining on images without labels, by a teacher. Other tasks have none of it."""

    teacher: str | None = _option(
        None, "A weight file of this library, a folder in timm's hub layout, or a name of timm."
    )
    teacher_size: int | None = _option(
        None, "Side in pixels at which the teacher sees a view; by default its own.", rules.AT_LEAST_1
    )
    runtime: Literal["pytorch", "openvino"] = _option(
        "pytorch", "What the teacher runs in; OpenVINO, once installed, is several times as fast on CPUs."
    )
    views: int = _option(
        4,
        "Views of each image that the teacher is asked about once; 0 asks about new ones at every step.",
        rules.NOT_NEGATIVE,
    )
    sides: tuple[int, ...] = _option(
        (64, 72, 80), "Sides in pixels of the student's images; a batch draws one.", rules.SIDES
    )
    final_sides: tuple[int, ...] = _option((112, 128, 144, 160), "Those of the last part of the run.", rules.SIDES)
    final_share: float = _option(0.15, "Share of the epochs that have them.", rules.SHARE)
    mosaic_share: float = _option(
        0.0,
        "Share of the batches whose images lie side by side in mosaics, each with its own answers.",
        rules.SHARE,
    )
    mosaics: tuple[int, ...] = _option((2, 4), "Images on a side of a mosaic; a batch draws one.", rules.SIDES)
    mosaic_sides: tuple[int, ...] = _option(
        (64, 96), "Sides of the images in it, multiples of the model's largest stride.", rules.SIDES
    )
    stored_side: int = _option(192, "Largest side in pixels at which images are kept.", rules.AT_LEAST_64)
    components: int = _option(
        256, "Principal components of the teacher's features that the student learns.", rules.AT_LEAST_1
    )
    temperature: float = _option(1.0, "That logits are divided by.", rules.ABOVE_0)
    logits_weight: float = _option(1.0, "Weight of the teacher's logits in the loss.", rules.NOT_NEGATIVE)
    features_weight: float = _option(1.0, "Weight of the teacher's features.", rules.NOT_NEGATIVE)
    labels_weight: float = _option(
        0.0, "Weight of labels, where a folder has nothing but folders of classes.", rules.NOT_NEGATIVE
    )
    validation_share: float = _option(
        0.02, "Share of the images that is kept for evaluation, 2,000 at most.", rules.SHARE
    )
    cache: str | None = _option(None, "Folder of decoded images and the teacher's answers; by default in the run's.")


@dataclass(frozen=True)
class OptimizerOptions:
    """How weights follow gradients."""

    name: OptimizerName = _option("adamw", "adamw; qhm, quasi-hyperbolic momentum; or sgd with Nesterov momentum.")
    learning_rate: float = _option(5e-4, "Largest learning rate, of the whole batch (it is not scaled).", rules.ABOVE_0)
    weight_decay: float = _option(
        0.05, "Weight decay; not of norms, position tables, global tokens and head bias.", rules.NOT_NEGATIVE
    )
    betas: tuple[float, float] = _option((0.9, 0.999), "Of AdamW.", rules.RATES)
    momentum: float = _option(0.9, "Of SGD, and beta of QHM.", rules.RATE)
    nu: float = _option(1.0, "Of QHM: share of the momentum in an update.", rules.SHARE)
    layer_decay: float = _option(1.0, "Factor of the learning rate from each layer to the one below it.", rules.PART)
    clip_norm: float | None = _option(
        None, "Largest norm of the gradient; longer ones are shortened to it.", rules.ABOVE_0
    )
    label_smoothing: float = _option(0.1, "Share of the target spread over all classes.", rules.RATE)
    ema_decay: float | None = _option(None, "Keep a moving average of the weights, and evaluate it.", rules.RATE)


@dataclass(frozen=True)
class ScheduleOptions:
    """How long training goes on, and how the learning rate changes, step by step."""

    epochs: int = _option(300, "Passes through the training images.", rules.AT_LEAST_1)
    warmup_epochs: float = _option(5.0, "Epochs in which the learning rate grows linearly.", rules.NOT_NEGATIVE)
    warmup_factor: float = _option(0.002, "Share of the learning rate that warm-up starts from.", rules.SHARE)
    final_learning_rate: float = _option(1e-6, "Learning rate that the cosine ends at.", rules.NOT_NEGATIVE)
    drops: tuple[float, ...] | None = _option(
        None,
        "Shares of the run after which the learning rate becomes a tenth, in place of the cosine.",
        rules.SHARES_OF_RUN,
    )
    patience: int | None = _option(
        None,
        "End the run after so many evaluations without a better one; by default it takes all epochs.",
        rules.AT_LEAST_1,
    )
    random_shift: bool = _option(False, "Train windowed attention with one random neighbour chunk (section 3.3).")
    random_shift_share: float = _option(0.75, "Share of the epochs after which all neighbours are seen.", rules.SHARE)


@dataclass(frozen=True)
class ComputeOptions:
    """Where and how to compute."""

    batch_size: int = _option(256, "Images of one step, of all processes together.", rules.AT_LEAST_1)
    accumulation: int = _option(
        1, "Parts that a step's images are cut into, one after the other, to save memory.", rules.AT_LEAST_1
    )
    workers: int = _option(
        2, "Processes that read images, for each training process; 0 reads in the process itself.", rules.NOT_NEGATIVE
    )
    device: str = _option("auto", "cpu, cuda, cuda:1; auto prefers a GPU.")
    threads: int | None = _option(None, "CPU threads; by default what PyTorch chooses.", rules.AT_LEAST_1)
    precision: Precision = _option("float32", "Of the forward pass: float32, bfloat16 or float16 by autocast.")
    gradient_checkpointing: bool = _option(False, "Compute activations again in backward, to save memory.")
    checkpointed_stages: tuple[int, ...] | None = _option(
        None,
        "Stages, counted from 1, that gradient_checkpointing is for: the first ones save most; by default all.",
        rules.SIDES,
    )
    compile: bool = _option(False, "Compile the model (torch.compile): faster steps on GPUs, once that is done.")
    deterministic: bool | None = _option(None, "Bit-identical repetition; by default on CPUs, not on GPUs.")


@dataclass(frozen=True)
class LoggingOptions:
    """What is written down, and how often."""

    every_steps: int = _option(10, "Steps between lines of metrics.jsonl.", rules.AT_LEAST_1)
    evaluate_every_epochs: int = _option(
        1, "Epochs between evaluations; the last epoch is always evaluated.", rules.AT_LEAST_1
    )
    checkpoint_minutes: float = _option(
        5.0, "Minutes between checkpoints within an epoch; each epoch ends with one.", rules.ABOVE_0
    )
    tensorboard: bool = _option(False, "Write TensorBoard events too (needs the train extra).")


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    task: str = _option("classification", f"What is learned: {', '.join(TASKS)}.")
    seed: int = _option(0, "Of weights, order and augmentation.", rules.NOT_NEGATIVE)
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
        for path, _, _, value, rule in walk(self):
            if rule is not None and value is not None and not rule.holds(value):
                raise ValueError(f"{path}={value!r}: {rule.text}")
        self._check_reading()
        if self.dense.window is not None and self.dense.crop is not None:
            raise ValueError(f"dense.crop={self.dense.crop}: dense.window is cut already; leave it out")
        if self.compute.batch_size < self.compute.accumulation:
            raise ValueError(
                f"compute.accumulation={self.compute.accumulation}: cuts a batch of {self.compute.batch_size} images "
                "into more parts than it has images"
            )

    def _check_reading(self) -> None:
        """Check how images are read, and that what follows from the number of their channels fits."""
        inputs = self.input
        if not inputs.level and not any((inputs.channels, inputs.value_range, inputs.mpp, inputs.magnification)):
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


class Option(NamedTuple):
    """An option of a configuration: its dotted path, type, help, value, and the rule for that, if any."""

    path: str
    kind: Any
    help: str
    value: Any
    rule: rules.Rule | None


def walk(config: Any, prefix: str = "") -> list[Option]:
    """Return every option of a configuration."""
    found, kinds = [], get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            found += walk(value, f"{path}.")
        else:
            found.append(Option(path, kinds[field.name], field.metadata["help"], value, field.metadata["rule"]))
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
