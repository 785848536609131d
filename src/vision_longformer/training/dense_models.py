"""Detectors and segmentation models of a run: built from a recipe, started from other weights, saved for use."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from vision_longformer.backbone import VisionLongformer
from vision_longformer.datasets.dense_loaders import Preprocessing
from vision_longformer.images import AS_STORED
from vision_longformer.pretrained import find_weights
from vision_longformer.training.channels import fit_first_layer, for_channels
from vision_longformer.training.classifiers import start_timm_from
from vision_longformer.training.config import TrainConfig
from vision_longformer.utils.tensor_files import write_tensors
from vision_longformer.variants import list_models
from vision_longformer.weights import (
    METADATA_KEY,
    READING,
    check_class_names,
    check_fit,
    check_options,
    check_preprocessing,
    check_version,
    describe,
    fit_positions,
    load,
    load_exactly,
    read_tensors,
)

FORMAT_VERSION = 1
MAX_HEAD_OPTION = 2**20  # of numbers in a head's settings, such as objects in an image
Builder = Callable[..., nn.Module]  # of a backbone's name, its options, a number of classes and the head's settings
BACKBONE = "backbone.features.model."  # where the backbone's own weights are in all of these models


def build_dense_model(config: TrainConfig, build: Builder, *, num_classes: int) -> nn.Module:
    """Build the model of a recipe, untrained.

    Args:
        config: The recipe.
        build: The builder of its task.
        num_classes: Of objects or pixels.

    Raises:
        ValueError: There is no such backbone, or an option has an impossible value.
    """
    options = _backbone_options(config)
    if config.model.drop_rate:
        options["drop_rate"] = config.model.drop_rate
    if config.model.drop_path_rate or config.model.name in list_models():
        options["drop_path_rate"] = config.model.drop_path_rate
    return _build(config.task, build, config.model.name, options, num_classes, config.dense.head)


def _backbone_options(config: TrainConfig) -> dict[str, Any]:
    """Return the options of a recipe's backbone that its weights depend on."""
    channels = config.input.reading.model_channels
    return {**config.model.options, **({} if channels == 3 else {"in_chans": channels})}


def preprocessing_of(config: TrainConfig) -> Preprocessing:
    """Return how images become the input of a recipe's model."""
    reading = config.input.reading
    return {
        "mean": for_channels(IMAGENET_DEFAULT_MEAN, reading.model_channels),
        "std": for_channels(IMAGENET_DEFAULT_STD, reading.model_channels),
        "interpolation": config.input.interpolation,
        "side": None if config.dense.sides is None or config.dense.window is not None else config.dense.sides[-1],
        "max_side": config.dense.max_side,
        **({} if config.dense.window is None else {"window": config.dense.window}),
        **({} if config.dense.crop is None else {"crop": config.dense.crop}),
        **({} if reading == AS_STORED else {READING: reading.to_dict()}),
    }


def start_dense_from(model: nn.Module, checkpoint: str) -> list[str]:
    """Give a new model the weights of a file, as far as they fit.

    Args:
        model: See `build_dense_model`.
        checkpoint: A classifier that was trained here, whose weights the backbone gets; a model of the same task; or
            the name of weights of the package.

    Returns:
        What was resized or left untrained, a sentence each; everything else was taken as it is.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file has nothing that fits.
    """
    path = find_weights(checkpoint)
    content, remarks = describe(path).get("content"), list[str]()
    if content == "timm":
        remarks = start_timm_from(model, path, prefix=BACKBONE)
        return [text for text in remarks if not text.endswith(": untrained")] + ["all but the backbone: untrained"]
    if content == "dense":
        state = read_tensors(path)[0]
    else:
        source = load(path)
        backbone = model.get_submodule(BACKBONE.rstrip("."))
        if not isinstance(backbone, VisionLongformer):
            raise ValueError(f"{path}: has no weights that fit this model; --model.checkpoint null begins without")
        source_state, remarks = fit_positions(source, backbone)
        state = {f"{BACKBONE}{name}": tensor for name, tensor in source_state.items()}
    own = model.state_dict()
    state, fitted = fit_first_layer(state, own)
    remarks += fitted
    fitting = {name: tensor for name, tensor in state.items() if name in own and tensor.shape == own[name].shape}
    if not fitting:
        raise ValueError(f"{checkpoint}: has no weights that fit this model; --model.checkpoint null begins without")
    model.load_state_dict(own | {name: tensor.detach().clone() for name, tensor in fitting.items()})
    return remarks + [f"{name}: untrained" for name in _shortened(own.keys() - fitting.keys())]


def save_dense(
    model: nn.Module, path: Path, *, config: TrainConfig, classes: Sequence[str], preprocessing: Preprocessing
) -> None:
    """Write a model so that `load_weights` needs nothing else.

    Raises:
        OSError: The disk is full, or the place cannot be written; a previous file is as it was.
    """
    metadata = {
        "format_version": FORMAT_VERSION,
        "content": "dense",
        "task": config.task,
        "backbone": config.model.name,
        "backbone_options": _backbone_options(config),
        "head": config.dense.head,
        "class_names": list(classes),
        "preprocessing": preprocessing,
    }
    write_tensors(path, model.state_dict(), {METADATA_KEY: json.dumps(metadata)})


def load_dense(
    path: Path, about: Mapping[str, Any], build: Builder
) -> tuple[nn.Module, tuple[str, ...], Preprocessing]:
    """Read what `save_dense` wrote: a model in evaluation mode, the names of its classes, and its preprocessing.

    Args:
        path: The file.
        about: What `describe` says of it.
        build: The builder of the model's task.

    Raises:
        ValueError: Its contents do not fit together, or it is of another version of the library.
    """
    check_version(path, about, readable=FORMAT_VERSION)
    try:
        classes = check_class_names(about["class_names"], num_classes=len(about["class_names"])) or []
        options = check_options(about["backbone_options"], field="backbone_options")
        preprocessing = check_preprocessing(
            about["preprocessing"],
            in_chans=options.get("in_chans", 3),
            sides=("side", "max_side", "scale", "window", "crop"),
        )
        head = check_options(about["head"], field="head", limit=MAX_HEAD_OPTION)
        parts = (about["task"], build, about["backbone"], options, len(classes), head)
        check_fit(path, lambda: _build(*parts))
        model = _build(*parts)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: the description in its metadata is damaged: {error}") from error
    load_exactly(model, read_tensors(path)[0], source=str(path))
    return model.eval(), tuple(classes), preprocessing


def _build(
    task: str,
    build: Builder,
    backbone: str,
    options: Mapping[str, Any],
    num_classes: int,
    head: Mapping[str, Any],
) -> nn.Module:
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in head.items()}
    try:
        return build(backbone, num_classes=num_classes, backbone_options=options, **settings)
    except (KeyError, TypeError) as error:
        raise ValueError(f"dense.head={dict(head)!r}: {task} cannot be built so ({error})") from error


def _shortened(names: set[str]) -> list[str]:
    """Return the parts of a model that hold all of `names`, in few words: their first two levels."""
    return sorted({".".join(name.split(".")[:2]) for name in names})
