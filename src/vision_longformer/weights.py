"""Self-describing weight files: safetensors whose metadata hold all that is needed to use them.

The metadata are one JSON value under the key "vision_longformer":

    {"format_version": 1, "config": ModelConfig.to_dict(), "class_names": [...] or null, "preprocessing": {...}}

A folder gets timm's hub layout, `config.json` beside `model.safetensors`, so that `timm.create_model` reads it with
"local-dir:FOLDER".
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vision_longformer.attention.full import FullAttention, resize_step_table
from vision_longformer.attention.linformer import LinformerAttention, resize_features
from vision_longformer.attention.position import AbsolutePosition, resize_axis_table
from vision_longformer.attention.windowed import WindowedAttention
from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import ModelConfig
from vision_longformer.timm_interface import default_cfg
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.tensor_bytes import bytes_of
from vision_longformer.variants import CONFIGS

METADATA_KEY = "vision_longformer"
HALVED_KEY = "vision_longformer_stored_from"  # the type of what is stored as float16
FORMAT_VERSION = 1
WEIGHTS_NAME = "model.safetensors"
PREPROCESSING = ("mean", "std", "interpolation", "crop_pct")


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
        "preprocessing": {key: description[key] for key in PREPROCESSING},
    }
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(weights) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(metadata)})
    if not is_file:
        with replacing(path / "config.json") as temporary:
            temporary.write_text(json.dumps(_hub_config(model, description, names), indent=2) + "\n")
    return weights


def load(path: str | Path) -> VisionLongformer:
    """Read what `save` wrote, in evaluation mode.

    Args:
        path: A weight file, or a folder that holds one.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no weight file of this library, or its contents do not fit together.
    """
    path = Path(path)
    if path.is_dir():
        path /= WEIGHTS_NAME
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    metadata, state = _read(path)
    try:
        config = ModelConfig.from_dict(metadata["config"])
        description = default_cfg(config) | metadata["preprocessing"]
        class_names = metadata["class_names"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: the description in its metadata is damaged: {error}") from error
    with torch.device("meta"):
        model = VisionLongformer(config)
    load_exactly(model, state, source=str(path))
    if class_names is not None:
        description["label_names"] = class_names
    model.pretrained_cfg = model.default_cfg = description
    return model.eval()


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Give `model` the tensors of `state`, as they are, if every one has its place.

    Raises:
        ValueError: Lists every missing, unexpected and misshapen entry.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = [f"missing: {name} {shape}" for name, shape in expected.items() if name not in state]
    problems += [f"unexpected: {name} {tuple(state[name].shape)}" for name in state if name not in expected]
    problems += [
        f"misshapen: {name} is {tuple(state[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if problems:
        raise ValueError(f"{source} does not fit the model:\n" + "\n".join(f"  {problem}" for problem in problems))
    model.load_state_dict(state, assign=True)


def pretrained_cfg_of(model: VisionLongformer) -> dict[str, Any]:
    """Return timm's description of a model: its own, or the default for its configuration."""
    return default_cfg(model.config) | dict(getattr(model, "pretrained_cfg", {}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Return the tensors of a weight file, and the description in its metadata as it stands there.

    What was halved for storage alone (see `halve`) is widened again.

    Raises:
        ValueError: It is no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
            is_halved = (file.metadata() or {}).get(HALVED_KEY) is not None
            # copies, as the file's own tensors may lie at odd addresses, which changes how products are rounded
            state = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error})") from error
    if is_halved:
        state = {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in state.items()}
    return state, text


def halve(source: Path, target: Path) -> None:
    """Write a weight file anew with float32 stored as float16, which `read_tensors` widens again.

    Raises:
        ValueError: A weight is too large for float16.
    """
    with safe_open(source, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    halved = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in state.items()}
    for name, tensor in halved.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{source}: {name} does not fit into float16")
    with replacing(target) as temporary:
        save_file(halved, temporary, metadata=metadata | {HALVED_KEY: "float32"})


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    state, text = read_tensors(path)
    if text is None:
        raise ValueError(
            f"{path}: its metadata do not say which model it is for (no {METADATA_KEY!r} entry). Load it into a "
            "model you build yourself, or convert a checkpoint of the published code with `vil convert`"
        )
    try:
        metadata = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: the description in its metadata is damaged: {error}") from error
    version = metadata.get("format_version") if isinstance(metadata, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(f"{path}: format_version is {version!r}, this version of the library reads {FORMAT_VERSION}")
    return metadata, state


def _hub_config(model: VisionLongformer, description: dict[str, Any], names: list[str] | None) -> dict[str, Any]:
    """Return timm's config.json. The architecture is the nearest name; `model_args` hold the exact configuration."""
    same = [name for name, config in CONFIGS.items() if config.stages == model.config.stages]
    hub = {
        "architecture": description.get("architecture") or (same or list(CONFIGS))[0],
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "global_pool": model.global_pool,
        "model_args": {"config": model.config.to_dict()},
        "pretrained_cfg": {
            key: value
            for key, value in (description | default_cfg(model.config)).items()
            if key not in ("url", "architecture", "label_names")
        }
        | {key: description[key] for key in PREPROCESSING},
    }
    return hub if names is None else hub | {"label_names": names}


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 of a model's parameters and buffers: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(bytes_of(tensor.cpu().contiguous()).data)
    return digest.hexdigest()


def resize_position_tables(state: Mapping[str, Tensor], model: VisionLongformer) -> dict[str, Tensor]:
    """Fit the position tables of a state dict, trained at some image size and window, to those of `model`.

    timm calls this on what it loads. Entries that fit, or are no such tables, are passed on.
    """
    state = dict(state)
    for name, module in model.named_modules():
        if isinstance(module, AbsolutePosition):
            for axis in ("rows", "columns"):
                key = f"{name}.{axis}"
                if key in state and len(state[key]) != len(getattr(module, axis)):
                    state[key] = resize_axis_table(state[key], len(getattr(module, axis)))
        elif isinstance(module, WindowedAttention) and module.position is not None:
            _fit_window(state, f"{name}.position.table", module.window)
        elif isinstance(module, FullAttention) and module.position is not None:
            key = f"{name}.position.table"
            if key in state and len(state[key]) != len(module.position.table):
                side = (math.isqrt(len(state[key])) + 1) // 2
                _require_square(key, state[key], rows=(2 * side - 1) ** 2)
                state[key] = resize_step_table(state[key], (side, side), module.grid)
        elif isinstance(module, LinformerAttention):
            num_global = module.num_global_tokens
            for table in ("key_features", "value_features"):
                key = f"{name}.{table}"
                if key in state and len(state[key]) != len(module.key_features):
                    side = math.isqrt(len(state[key]) - num_global)
                    _require_square(key, state[key], rows=num_global + side**2)
                    state[key] = resize_features(state[key], (side, side), module.grid, num_global_tokens=num_global)
    return state


def _require_square(key: str, table: Tensor, *, rows: int) -> None:
    if len(table) != rows:
        raise ValueError(
            f"{key} has {len(table)} rows, which belong to no square map: build the model with the img_size it was "
            "trained at, load it, then call set_input_size"
        )


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
