"""A training run's state on disk: one safetensors file, whose metadata hold the rest as JSON. No pickle.

    tensors   "model.NAME", "ema.NAME", "optimizer.PARAMETER.ENTRY"
    metadata  under "vision_longformer": {"format_version", "content": "training", "progress", "model", "scaler", ...}

It is written beside its place, synced and renamed, so that a crash at any moment leaves the old file or the new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from vision_longformer.utils.atomic_files import replacing
from vision_longformer.weights import METADATA_KEY

FORMAT_VERSION = 1
CONTENT = "training"


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: Steps taken.
        evaluated_epochs: Epochs whose end was evaluated.
        best: Largest value so far of the task's own measure; None before the first evaluation.
        best_epoch: Epoch that had it, counted from 1; 0 before the first evaluation.
        seconds: Time spent on training steps.
    """

    step: int = 0
    evaluated_epochs: int = 0
    best: float | None = None
    best_epoch: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """What `write` was given, and `read` gives back."""

    tensors: dict[str, Tensor]
    progress: Progress
    about: dict[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors under `prefix`, without it."""
        return {name[len(prefix) + 1 :]: t for name, t in self.tensors.items() if name.startswith(f"{prefix}.")}


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint.

    Raises:
        OSError: The disk is full, or the place cannot be written; says whether the previous file is as it was.
    """
    previous = path.stat().st_ino if path.exists() else None
    metadata = {
        "format_version": FORMAT_VERSION,
        "content": CONTENT,
        "progress": vars(checkpoint.progress),
        **checkpoint.about,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(metadata)})
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        kept = "; the previous checkpoint is intact" if previous and path.stat().st_ino == previous else ""
        raise OSError(f"{path}: cannot be written ({reason}){kept}") from error


def read(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ValueError: It is no checkpoint of a training run, or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a checkpoint ({error})") from error
    if not isinstance(metadata, dict) or metadata.get("content") != CONTENT:
        raise ValueError(f"{path}: is not the checkpoint of a training run")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version is {metadata.get('format_version')!r}, this version of the library reads "
            f"{FORMAT_VERSION}"
        )
    about = {key: value for key, value in metadata.items() if key not in ("format_version", "content", "progress")}
    return Checkpoint(tensors, Progress(**metadata["progress"]), about)


def optimizer_tensors(optimizer: Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return an optimiser's state under the names of the parameters."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}.{entry}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for entry, value in state.items()
    }


def restore_optimizer(optimizer: Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the state that `optimizer_tensors` returned."""
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        parameter_name, entry = name.rsplit(".", 1)
        parameter = parameters[parameter_name]
        on_device = entry != "step" or parameter.is_cuda  # AdamW counts its steps on the CPU, unless it is fused
        optimizer.state[parameter][entry] = tensor.to(parameter.device) if on_device else tensor
