"""Self-describing weight files: safetensors whose metadata hold all that is needed to use them.

The metadata are one JSON value under the key "vision_longformer":

    {"format_version": 1, "config": ModelConfig.to_dict(), "class_names": [...] or null, "preprocessing": {...}}

A folder gets timm's hub layout, `config.json` beside `model.safetensors`, so that `timm.create_model` reads it with
"local-dir:FOLDER".
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import ModelConfig
from vision_longformer.images import AS_STORED, Reading
from vision_longformer.timm_interface import default_cfg
from vision_longformer.utils import strict_json, tensor_files
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.tensor_files import bytes_of, open_file, read_entries, read_header, write_tensors
from vision_longformer.utils.words import shown
from vision_longformer.weights.checks import (
    READING,
    check_class_names,
    check_finite,
    check_preprocessing,
    check_state,
    check_version,
    expected_state,
    shapes_of,
)
from vision_longformer.weights.timm_folder import (
    CONFIG_NAME,
    PREPROCESSING,
    WEIGHTS_NAME,
    folder_config,
    read_folder_config,
)

logger = logging.getLogger(__name__)
METADATA_KEY = "vision_longformer"
HALVED_KEY = "vision_longformer_stored_from"  # the type of what is stored as float16
FORMAT_VERSION = 1
MANY_BLOCKS = 100  # of which a model takes a noticeable time to build


def save(model: VisionLongformer, path: str | Path, *, class_names: Sequence[str] | None = None) -> Path:
    """Write a model so that `load` needs nothing else.

    Args:
        model: Its preprocessing is taken from `pretrained_cfg`, as timm and `load` set it.
        path: A file whose name ends in .safetensors, or a folder, which gets timm's hub layout.
        class_names: One for each class; by default the model's own, if it has any.

    Returns:
        The weight file.

    Raises:
        ValueError: The number of class names is not that of the classes, or the model was pruned.
    """
    path = Path(path)
    description = pretrained_cfg_of(model)
    names = list(class_names) if class_names is not None else description.get("label_names")
    if names is not None and len(names) != model.num_classes:
        raise ValueError(f"class_names: got {len(names)} names for {model.num_classes} classes")
    if len(model.stages) != len(model.config.stages):
        raise ValueError(f"model: only {len(model.stages)} of its {len(model.config.stages)} stages are left to save")
    is_file = path.suffix == ".safetensors"
    weights = path if is_file else path / WEIGHTS_NAME
    metadata = {
        "format_version": FORMAT_VERSION,
        "config": model.config.to_dict(),
        "class_names": names,
        "preprocessing": {key: description[key] for key in (*PREPROCESSING, READING) if key in description},
    }
    write_tensors(weights, model.state_dict(), {METADATA_KEY: json.dumps(metadata)})
    if not is_file:
        with replacing(path / CONFIG_NAME) as temporary:
            temporary.write_text(json.dumps(folder_config(model, description, names), indent=2) + "\n")
    return weights


def load(path: str | Path, *, verify: bool = True) -> VisionLongformer:
    """Read what `save` wrote, or a folder that timm wrote of one of our models, in evaluation mode.

    What the file says of itself is checked before anything is built from it. Its tensors are compared with the digests
    that `save` wrote; of a file without them, which is older, a note is logged.

    Args:
        path: A weight file, or a folder that holds one.
        verify: Whether to compare with digests: off for a file that another program has changed on purpose.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no weight file of this library, its contents do not fit together or are no finite numbers, or
            it is damaged.
    """
    path = Path(path)
    folder = path if path.is_dir() else None
    path = path if folder is None else path / WEIGHTS_NAME
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    with open_file(path) as file:
        header = read_header(file, path, verify=verify)
        if folder is not None and METADATA_KEY not in header.metadata:
            metadata, said_in = read_folder_config(folder), f"{folder / CONFIG_NAME}"
        else:
            metadata = _description(header.metadata.get(METADATA_KEY), path)
            said_in = f"{path}: the description in its metadata"
            _refuse_other_contents(metadata, path)
        try:
            config = ModelConfig.from_dict(metadata["config"])
            preprocessing = check_preprocessing(metadata["preprocessing"], in_chans=config.in_chans)
            class_names = check_class_names(metadata["class_names"], num_classes=config.num_classes)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{said_in} is damaged: {error}") from error
        if sum(stage.depth for stage in config.stages) > MANY_BLOCKS:
            check_state(header.entries, expected_state(config), source=str(path))
        with torch.device("meta"):  # which takes no memory
            model = VisionLongformer(config)
        check_state(header.entries, shapes_of(model), source=str(path))
        finite = functools.partial(check_finite, source=str(path))
        state = _widened(read_entries(file, path, header, verify=verify, on_tensor=finite), header.metadata)
    model.load_state_dict(state, assign=True)
    logger.info("%s: %d tensors of a model of %d stages", path, len(state), len(config.stages))
    description = default_cfg(config) | preprocessing
    if class_names is not None:
        description["label_names"] = class_names
    model.pretrained_cfg = model.default_cfg = description
    return model.eval()


def _refuse_other_contents(metadata: Mapping[str, Any], path: Path) -> None:
    """Raise `ValueError` for files that are whole, but hold something else than one of our backbones or classifiers."""
    match metadata.get("content"):
        case "dense":
            task = str(metadata.get("task")).replace("_", " ")
            what = f"a model for {task}, which `vil predict` and `vil evaluate` take"
        case "timm":
            what = f"a model of timm ({shown(metadata.get('name'))}), which `vil predict` and `vil evaluate` take"
        case "strokes":
            what = "a head of `vil explore` and its backbone, which `vil predict` takes"
        case "training":
            what = f"a run to continue; the weights to use are in {path.with_name('best.safetensors')}"
        case _:
            return
    raise ValueError(f"{path}: holds {what}; wanted here are a classifier's or a backbone's weights of this library")


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Give `model` the tensors of `state`, as they are, if every one has its place.

    Raises:
        ValueError: Lists the missing, unexpected and misshapen entries.
    """
    check_state(state, shapes_of(model), source=source)
    model.load_state_dict(state, assign=True)


def pretrained_cfg_of(model: VisionLongformer) -> dict[str, Any]:
    """Return timm's description of a model: its own, or the default for its configuration."""
    return default_cfg(model.config) | dict(getattr(model, "pretrained_cfg", {}))


def reading_of(model: VisionLongformer) -> Reading:
    """Return how images were read in training; as their files say where the model does not."""
    values = dict(getattr(model, "pretrained_cfg", {})).get(READING)
    return AS_STORED if values is None else Reading.from_dict(values)


def read_tensors(path: Path, *, verify: bool = True) -> tuple[dict[str, Tensor], str | None]:
    """Return the tensors of a weight file, and the description in its metadata as it stands there.

    What was halved for storage alone (see `halve`) is widened again.

    Args:
        path: The file.
        verify: Whether to compare with the file's digests.

    Raises:
        ValueError: It is no safetensors file, it is damaged, or its weights are no finite numbers.
    """
    state, metadata = tensor_files.read_tensors(path, verify=verify)
    for name, tensor in state.items():
        check_finite(name, tensor, source=str(path))
    return _widened(state, metadata), metadata.get(METADATA_KEY)


def halve(source: Path, target: Path) -> None:
    """Write a weight file anew with float32 stored as float16, which `read_tensors` widens again.

    Raises:
        ValueError: A weight is too large for float16.
    """
    state, metadata = tensor_files.read_tensors(source)
    halved = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in state.items()}
    for name, tensor in halved.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{source}: {name} does not fit into float16")
    write_tensors(target, halved, metadata | {HALVED_KEY: "float32"})


def _widened(state: dict[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    if HALVED_KEY not in metadata:
        return state
    return {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in state.items()}


def _description(text: str | None, path: Path) -> dict[str, Any]:
    if text is None:
        raise ValueError(
            f"{path}: its metadata do not say which model it is for (no {METADATA_KEY!r} entry). Load it into a "
            "model you build yourself, or convert a checkpoint of the published code with `vil convert`"
        )
    try:
        metadata = strict_json.parse(text)
    except ValueError as error:
        raise ValueError(f"{path}: the description in its metadata is damaged: {error}") from error
    check_version(path, metadata, readable=FORMAT_VERSION)
    found: dict[str, Any] = metadata
    return found


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 of a model's parameters and buffers: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(bytes_of(tensor.cpu().contiguous()))
    return digest.hexdigest()


def describe(path: Path) -> dict[str, Any]:
    """Return the description in a file's metadata; nothing if it has none, which `load` explains."""
    try:
        with open_file(path) as file:
            found = strict_json.parse(read_header(file, path).metadata.get(METADATA_KEY, "{}"))
    except ValueError:  # whatever is wrong, `load` says it
        return {}
    return found if isinstance(found, dict) else {}
