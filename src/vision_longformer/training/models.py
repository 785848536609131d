"""The model of a run: built from a recipe, started from other weights, saved for use.

Models of this library are saved as `weights.save` does. Models of timm are saved in the same way, with timm's
name and options in the place of our configuration.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vision_longformer.attention import WindowedAttention
from vision_longformer.attention.full import resize_step_table
from vision_longformer.backbone import VisionLongformer
from vision_longformer.files import replacing
from vision_longformer.registry import create_model
from vision_longformer.training.config import InputOptions, ModelOptions
from vision_longformer.training.loading import kept_share
from vision_longformer.variants import list_models
from vision_longformer.weights import METADATA_KEY, PREPROCESSING, load, load_exactly, pretrained_cfg_of, save

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Trained:
    """A model with weights, and what is needed to use it.

    Attributes:
        model: In evaluation mode.
        classes: Names of its outputs; None if the file does not say.
        preprocessing: "mean", "std", "interpolation", "crop_pct" and "size"; of detectors and segmentation models
            "side", "max_side" and "scale" in place of the last two (see `dense_images`).
        task: What it was trained for.
    """

    model: nn.Module
    classes: tuple[str, ...] | None
    preprocessing: dict[str, Any]
    task: str = "classification"


def build_model(options: ModelOptions, *, num_classes: int, size: int) -> nn.Module:
    """Build the model of a recipe, untrained.

    Raises:
        ValueError: There is no such model, or an option has an impossible value.
    """
    arguments: dict[str, Any] = {
        "num_classes": num_classes,
        "drop_rate": options.drop_rate,
        "drop_path_rate": options.drop_path_rate,
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
    _try_size(model, options.name, size)
    return model


def start_from(model: nn.Module, checkpoint: str | Path, *, classes: Sequence[str]) -> list[str]:
    """Give a new model the weights of a file, fitted to its image size, windows and classes.

    Args:
        model: Of this library.
        checkpoint: A weight file of this library.
        classes: Of the new model.

    Returns:
        What was resized or left untrained, a sentence each; everything else was taken as it is.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file does not fit the model; lists every entry that does not.
    """
    if not isinstance(model, VisionLongformer):
        raise ValueError(f"model.checkpoint={str(checkpoint)!r}: only models of this library can start from a file")
    source = load(checkpoint)
    state, remarks = fit_positions(source, model)
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


def fit_positions(source: VisionLongformer, model: VisionLongformer) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights of `source` with its position tables fitted to `model`, and what was resized.

    Args:
        source: Its own tables are resized too.
        model: Of the image size and the windows that are wanted.
    """
    remarks = []
    if source.config.image_size != model.config.image_size:
        before, after = (f"{h}×{w}" for h, w in (source.config.image_size, model.config.image_size))
        tables = {name: tensor.shape for name, tensor in source.state_dict().items()}
        source.set_input_size(model.config.image_size)
        resized = [name for name, tensor in source.state_dict().items() if tensor.shape != tables[name]]
        remarks += [f"{name}: resized from images of {before} to {after}" for name in resized]
    state = source.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, WindowedAttention) and module.position is not None:
            remarks += _fit_window(state, f"{name}.position.table", module.window)
    return state, remarks


@torch.no_grad()
def _try_size(model: nn.Module, name: str, size: int) -> None:
    """Make sure that one of timm's models, some of which are built for one size, takes the images of a run."""
    try:
        model.eval()(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"input.size={size}: {name} cannot take images of {size}×{size} ({error}); give it its own size, or "
            f"model.options={{img_size: {size}}} if it has such an option"
        ) from error
    model.train()


def _fit_window(state: dict[str, Tensor], name: str, window: int) -> list[str]:
    """Stretch a table of relative positions to another window, as the published code does for fine-tuning."""
    table = state.get(name)
    if table is None or len(table) == (4 * window - 1) ** 2:
        return []
    before = (round(len(table) ** 0.5) + 1) // 4
    if (4 * before - 1) ** 2 != len(table):
        return []  # of another mechanism: `load_exactly` lists it
    state[name] = resize_step_table(table, (2 * before, 2 * before), (2 * window, 2 * window))
    return [f"{name}: resized from windows of {before} to {window}"]


def save_weights(
    model: nn.Module, path: Path, *, options: ModelOptions, inputs: InputOptions, classes: Sequence[str]
) -> None:
    """Write a model so that `load_weights` needs nothing else.

    Raises:
        OSError: The disk is full, or the place cannot be written; a previous file is as it was.
    """
    preprocessing = preprocessing_of(model, inputs)
    if isinstance(model, VisionLongformer):
        model.pretrained_cfg = pretrained_cfg_of(model) | {key: preprocessing[key] for key in PREPROCESSING}
        save(model, path, class_names=classes)
        return
    metadata = {
        "format_version": FORMAT_VERSION,
        "content": "timm",
        "name": options.name,
        "options": {**options.options, "num_classes": len(classes)},
        "class_names": list(classes),
        "preprocessing": preprocessing,
    }
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(metadata)})


def load_weights(path: str | Path) -> Trained:
    """Read a model that was trained or saved here.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no weight file.
    """
    path = Path(path)
    metadata = describe(path)
    if metadata.get("content") == "training":
        raise ValueError(
            f"{path}: is a checkpoint to continue training from; the weights to use are in "
            f"{path.with_name('best.safetensors')}"
        )
    if metadata.get("content") == "dense":
        from vision_longformer.training.dense_models import load_dense  # which needs this module

        return load_dense(path)
    if metadata.get("content") == "timm":
        model = timm.create_model(metadata["name"], **metadata["options"])
        with safe_open(path, framework="pt") as file:
            load_exactly(model, {name: file.get_tensor(name) for name in file.keys()}, source=str(path))  # noqa: SIM118
        return Trained(model.eval(), tuple(metadata["class_names"]), metadata["preprocessing"])
    model = load(path)
    description = pretrained_cfg_of(model)
    size = min(model.config.image_size)
    names = description.get("label_names")
    preprocessing = {key: description[key] for key in PREPROCESSING} | {"size": size}
    return Trained(model, None if names is None else tuple(names), preprocessing)


def preprocessing_of(model: nn.Module, inputs: InputOptions) -> dict[str, Any]:
    """Return how images become a model's input."""
    description = pretrained_cfg_of(model) if isinstance(model, VisionLongformer) else dict(model.pretrained_cfg)  # type: ignore[arg-type]
    return {
        "mean": list(description["mean"]),
        "std": list(description["std"]),
        "interpolation": inputs.interpolation,
        "crop_pct": kept_share(inputs),
        "size": inputs.size,
    }


def describe(path: Path) -> dict[str, Any]:
    """Return the description in a file's metadata; nothing if it has none, which `load` explains."""
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    except Exception:  # whatever is wrong, `load` says it
        return {}
    return found if isinstance(found, dict) else {}
