"""What a weight file must be like before a model is built from it: files come from strangers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import MAX_CLASSES, ModelConfig
from vision_longformer.images import Reading
from vision_longformer.utils.tensor_files import Entry, open_file, read_header
from vision_longformer.utils.words import shown

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos", "random")  # timm's
LARGEST = 1e6  # of a mean or a deviation
MIN_SCORE = "min_score"  # of objects that a detector tells of, as training chose it
READING = "reading"  # how images were read in training, where files do not say it (see `images.Reading`)
LONGEST_SIDE = 2**20  # pixels
MAX_OPTION = 8192  # of numbers among the options of other models: pixels, channels, blocks
OF_OTHER_FILES = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
LISTED = 50  # lines of a message
LONGEST_NAME = 200  # characters of a tensor's name in it

Shape = tuple[int, ...]


def check_version(path: Path, about: object, *, readable: int) -> None:
    """Refuse a file of another version of the library.

    Args:
        path: The file.
        about: What it says of itself.
        readable: The version that is read.

    Raises:
        ValueError: It is another one.
    """
    version = about.get("format_version") if isinstance(about, Mapping) else None
    if version != readable:
        raise ValueError(f"{path}: format_version is {shown(version)}, this version of the library reads {readable}")


def check_class_names(names: object, *, num_classes: int) -> list[str] | None:
    """Return the names of a model's classes, if that is what they are; None if it has none.

    Raises:
        ValueError: They are no texts, or not as many as there are classes.
    """
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names={shown(names)}: must be a list of texts")
    if len(names) != num_classes:
        raise ValueError(f"class_names: {len(names)} names for {num_classes} classes")
    return names


def check_preprocessing(values: object, *, in_chans: int = 3, sides: Sequence[str] = ()) -> dict[str, Any]:
    """Return how images become a model's input, if that is what it says.

    Args:
        values: "mean" and "std", numbers for each channel; "interpolation"; "crop_pct", a share of the image;
            "reading", a `Reading` as a dictionary; "label_values", a whole number for each class of index images; each
            of which may be missing.
        in_chans: Channels of the input.
        sides: What else there is: numbers of pixels, or None.

    Raises:
        ValueError: Something is of another kind, or impossible; names it.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"preprocessing={shown(values)}: must be an object")
    known = ("mean", "std", "interpolation", "crop_pct", READING, MIN_SCORE, "label_values", *sides)
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"preprocessing: has {shown(name)}, which is none of {', '.join(known)}")
        if name in ("mean", "std"):
            _check_colours(name, value, in_chans=in_chans)
        elif name == READING:
            Reading.from_dict(value)
        elif name == "label_values" and not _are_labels(value):
            raise ValueError(f"preprocessing: label_values={shown(value)}: must be whole numbers below 2³²")
        elif name == MIN_SCORE and not (_is_number(value) and 0 <= value <= 1):
            raise ValueError(f"preprocessing: {MIN_SCORE}={shown(value)}: must be a number from 0 to 1")
        elif name == "interpolation" and value not in INTERPOLATIONS:
            raise ValueError(f"preprocessing: interpolation={shown(value)}: must be one of {', '.join(INTERPOLATIONS)}")
        elif name == "crop_pct" and not (_is_number(value) and 0 < value <= 1):
            raise ValueError(f"preprocessing: crop_pct={shown(value)}: must be a number above 0, up to 1")
        elif name in sides and not (value is None or (_is_number(value) and 0 < value <= LONGEST_SIDE)):
            raise ValueError(f"preprocessing: {name}={shown(value)}: must be a number of pixels up to {LONGEST_SIDE}")
    return dict(values)


def _are_labels(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**32 for value in values)


def check_options(values: object, *, field: str, limit: int = MAX_OPTION) -> dict[str, Any]:
    """Return the options that a model is built with, without those that would read other files or fetch some.

    Args:
        values: By name.
        field: Of the description that has them, for messages.
        limit: Of numbers other than that of classes.

    Raises:
        ValueError: They are no options, or one is a number that no model has.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{field}={shown(values)}: must be an object")
    for name, value in values.items():
        most = MAX_CLASSES if name == "num_classes" else limit
        if not all(abs(number) <= most for number in _numbers(value)):  # of NaN false too
            raise ValueError(f"{field}: {shown(name)}={shown(value)}: holds a number beyond {most}")
    return {name: value for name, value in values.items() if name not in OF_OTHER_FILES}


def check_state(
    entries: Mapping[str, Entry | Tensor], expected: Mapping[str, tuple[Shape, torch.dtype]], *, source: str
) -> None:
    """Compare names, shapes and types of a file's tensors with those that a model needs.

    Any type of floating point fits any other.

    Raises:
        ValueError: Lists what is missing, unexpected, misshapen or of another type.
    """
    problems = [f"missing: {name} {shape}" for name, (shape, _) in expected.items() if name not in entries]
    problems += [
        f"unexpected: {name[:LONGEST_NAME]} {_shape(entries[name])}" for name in entries if name not in expected
    ]
    for name, (shape, dtype) in expected.items():
        if name not in entries:
            continue
        entry = entries[name]
        if _shape(entry) != shape:
            problems.append(f"misshapen: {name} is {_shape(entry)}, expected {shape}")
        elif entry.dtype != dtype and not (entry.dtype.is_floating_point and dtype.is_floating_point):
            problems.append(f"of another type: {name} is {entry.dtype}, expected {dtype}")
    if problems:
        more = len(problems) - LISTED
        lines = problems if more <= 0 else [*problems[:LISTED], f"and {more} more"]
        raise ValueError(f"{source} does not fit the model:\n" + "\n".join(f"  {line}" for line in lines))


def expected_state(config: ModelConfig) -> dict[str, tuple[Shape, torch.dtype]]:
    """Return shapes and types of a model's parameters and buffers, in little time for any depth.

    The blocks of a stage are alike: one of each is built, without memory for its weights.
    """
    single = tuple(replace(stage, depth=1) for stage in config.stages)
    with torch.device("meta"):
        small = VisionLongformer(replace(config, stages=single)).state_dict()
    expected = {}
    for name, tensor in small.items():
        parts = name.split(".")  # stages, number, blocks, 0, ...
        in_block = parts[0] == "stages" and parts[2] == "blocks"
        for block in range(config.stages[int(parts[1])].depth) if in_block else (0,):
            own = ".".join([*parts[:3], str(block), *parts[4:]]) if in_block else name
            expected[own] = (tuple(tensor.shape), tensor.dtype)
    return expected


def shapes_of(model: nn.Module) -> dict[str, tuple[Shape, torch.dtype]]:
    """Return shapes and types of a model's parameters and buffers."""
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in model.state_dict().items()}


def check_fit(path: Path, build: Callable[[], nn.Module]) -> None:
    """Compare a file's tensors with the model that it describes, before that takes memory.

    Args:
        path: The file.
        build: Builds the model.

    Raises:
        ValueError: They do not fit.
    """
    with open_file(path) as file:
        header = read_header(file, path)
    try:
        with torch.device("meta"):
            expected = shapes_of(build())
    except (RuntimeError, NotImplementedError):  # some models of others cannot be built without memory
        return
    check_state(header.entries, expected, source=str(path))


def check_finite(name: str, tensor: Tensor, *, source: str) -> None:
    """Refuse weights that are no numbers: every result would be none.

    Raises:
        ValueError: Names them.
    """
    # a sum is finite only if all are, takes a tenth of the time of looking at each, and may overflow
    if tensor.is_floating_point() and not math.isfinite(tensor.sum()) and not tensor.isfinite().all():
        raise ValueError(f"{source}: {name} holds values that are not finite numbers (NaN or infinite)")


def _check_colours(name: str, value: object, *, in_chans: int) -> None:
    if not isinstance(value, list | tuple) or not all(_is_number(each) and abs(each) <= LARGEST for each in value):
        raise ValueError(f"preprocessing: {name}={shown(value)}: must be a list of numbers")
    if len(value) not in (1, 3, in_chans):
        raise ValueError(f"preprocessing: {name} has {len(value)} numbers for {in_chans} channels")
    if name == "std" and min(value) <= 0:
        raise ValueError(f"preprocessing: std={shown(value)}: must be above 0")


def _numbers(value: object) -> Iterator[int | float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, Mapping):
        yield from _numbers(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _shape(entry: Entry | Tensor) -> Shape:
    return tuple(entry.shape)
