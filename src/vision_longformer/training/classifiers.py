"""The model of a run: built from a recipe, started from other weights, saved for use.

Models of this library are saved as `weights.save` does. Models of timm are saved in the same way, with timm's
name and options in the place of our configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from vision_longformer.backbone import VisionLongformer
from vision_longformer.datasets.loaders import kept_share
from vision_longformer.datasets.options import InputOptions
from vision_longformer.images import AS_STORED
from vision_longformer.pretrained import find_weights
from vision_longformer.registry import create_model
from vision_longformer.training.channels import fit_first_layer, for_channels
from vision_longformer.training.config import ModelOptions
from vision_longformer.utils.tensor_files import write_tensors
from vision_longformer.utils.words import shown
from vision_longformer.variants import list_models
from vision_longformer.weights import (
    METADATA_KEY,
    PREPROCESSING,
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
    pretrained_cfg_of,
    read_tensors,
    save,
)

FORMAT_VERSION = 1


def build_model(options: ModelOptions, *, num_classes: int, size: int, in_chans: int = 3) -> nn.Module:
    """Build the model of a recipe, untrained.

    Raises:
        ValueError: There is no such model, or an option has an impossible value.
    """
    arguments: dict[str, Any] = {
        "num_classes": num_classes,
        "drop_rate": options.drop_rate,
        "drop_path_rate": options.drop_path_rate,
        **({} if in_chans == 3 else {"in_chans": in_chans}),  # not every model of timm knows it
    }
    try:
        if options.name in list_models():
            return create_model(options.name, **{"img_size": size, **arguments, **options.options})
        if options.name not in timm.list_models():
            create_model(options.name)  # says which name is meant
        if not options.drop_path_rate:
            del arguments["drop_path_rate"]  # not every model of timm knows it
        model: nn.Module = timm.create_model(options.name, **{**arguments, **options.options})
    except (TypeError, AssertionError, RuntimeError) as error:
        raise ValueError(f"model.options={options.options!r}: {options.name} cannot be built so ({error})") from error
    _try_size(model, options.name, size, in_chans)
    return model


def start_from(model: nn.Module, checkpoint: str | Path, *, classes: Sequence[str]) -> list[str]:
    """Give a new model the weights of a file, fitted to its image size, windows and classes.

    Args:
        model: Of this library, or of timm.
        checkpoint: A weight file that was written here, of such a model; or the name of weights of the package.
        classes: Of the new model.

    Returns:
        What was resized or left untrained, a sentence each; everything else was taken as it is.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file does not fit the model; lists every entry that does not.
    """
    path = find_weights(checkpoint)
    if not isinstance(model, VisionLongformer):
        return start_timm_from(model, path)
    source = load(path)
    state, remarks = fit_positions(source, model)
    state, fitted = fit_first_layer(state, model.state_dict())
    remarks += fitted
    known = source.pretrained_cfg.get("label_names")
    if source.num_classes != model.num_classes or (known is not None and list(known) != list(classes)):
        own = model.state_dict()
        for name in [name for name in own if name.startswith("head.")]:
            state[name] = own[name]
        for name in [name for name in state if name.startswith("head.") and name not in own]:
            del state[name]
        remarks.append(f"head: untrained, as the classes are others ({source.num_classes} before, {len(classes)} here)")
    load_exactly(model, {name: t.detach().clone() for name, t in state.items()}, source=str(checkpoint))
    return remarks


def start_timm_from(model: nn.Module, path: Path, *, prefix: str = "") -> list[str]:
    """Give one of timm's models the weights of a file that has them, as far as they fit.

    Args:
        model: It, or a model that holds it.
        path: A classifier that was trained here.
        prefix: Of its names within `model`.

    Returns:
        What was left untrained.

    Raises:
        ValueError: The file is of no such model.
    """
    state = {f"{prefix}{name}": tensor for name, tensor in read_tensors(path)[0].items()}
    own = model.state_dict()
    state, remarks = fit_first_layer(state, own)
    fitting = {name: tensor for name, tensor in state.items() if name in own and tensor.shape == own[name].shape}
    if describe(path).get("content") != "timm" or len(fitting) < len(state) // 2:
        raise ValueError(f"{path}: has no weights that fit this model; --model.checkpoint null begins without")
    model.load_state_dict(own | fitting)
    return remarks + [f"{name}: untrained" for name in own if name.startswith(prefix) and name not in fitting]


@torch.no_grad()
def _try_size(model: nn.Module, name: str, size: int, in_chans: int) -> None:
    """Make sure that one of timm's models, some of which are built for one size, takes the images of a run."""
    try:
        model.eval()(torch.zeros(1, in_chans, size, size, dtype=torch.float32))
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"input.size={size}: {name} cannot take images of {size}×{size} ({error}); give it its own size, or "
            f"model.options={{img_size: {size}}} if it has such an option"
        ) from error
    model.train()


def save_weights(
    model: nn.Module, path: Path, *, options: ModelOptions, inputs: InputOptions, classes: Sequence[str]
) -> None:
    """Write a model so that `load_weights` needs nothing else.

    Raises:
        OSError: The disk is full, or the place cannot be written; a previous file is as it was.
    """
    preprocessing = preprocessing_of(model, inputs)
    if isinstance(model, VisionLongformer):
        kept = {key: preprocessing[key] for key in (*PREPROCESSING, READING) if key in preprocessing}
        model.pretrained_cfg = pretrained_cfg_of(model) | kept
        save(model, path, class_names=classes)
        return
    metadata = {
        "format_version": FORMAT_VERSION,
        "content": "timm",
        "name": options.name,
        "options": {
            **options.options,
            "num_classes": len(classes),
            **({} if len(preprocessing["mean"]) == 3 else {"in_chans": len(preprocessing["mean"])}),
        },
        "class_names": list(classes),
        "preprocessing": preprocessing,
    }
    write_tensors(path, model.state_dict(), {METADATA_KEY: json.dumps(metadata)})


def load_timm(path: Path, about: Mapping[str, Any]) -> tuple[nn.Module, tuple[str, ...], dict[str, Any]]:
    """Read a model of timm that `save_weights` wrote: in evaluation mode, with its classes and its preprocessing.

    Args:
        path: The file.
        about: What `describe` says of it.

    Raises:
        ValueError: Its contents do not fit together, or it is of another version of the library.
    """
    check_version(path, about, readable=FORMAT_VERSION)
    try:
        options, name = check_options(about["options"], field="options"), str(about["name"])
        names = check_class_names(about["class_names"], num_classes=options["num_classes"])
        preprocessing = check_preprocessing(
            about["preprocessing"], in_chans=options.get("in_chans", 3), sides=("size",)
        )
        if name not in timm.list_models():
            raise ValueError(f"name={shown(name)}: timm has no such model")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: the description in its metadata is damaged: {error}") from error
    try:
        check_fit(path, lambda: timm.create_model(name, **options))
        model: nn.Module = timm.create_model(name, **options)
    except (TypeError, AssertionError, RuntimeError) as error:
        raise ValueError(f"{path}: {name} cannot be built with the options in its metadata ({error})") from error
    load_exactly(model, read_tensors(path)[0], source=str(path))
    return model.eval(), tuple(names or ()), preprocessing


def preprocessing_of(model: nn.Module, inputs: InputOptions) -> dict[str, Any]:
    """Return how images become a model's input."""
    description = pretrained_cfg_of(model) if isinstance(model, VisionLongformer) else dict(model.pretrained_cfg)  # type: ignore[arg-type]
    reading = inputs.reading
    return {
        "mean": for_channels(description["mean"], reading.model_channels),
        "std": for_channels(description["std"], reading.model_channels),
        "interpolation": inputs.interpolation,
        "crop_pct": kept_share(inputs),
        "size": inputs.size,
        **({} if reading == AS_STORED else {READING: reading.to_dict()}),
    }
