"""A training run's state on disk: one safetensors file, whose metadata hold the rest as JSON. No pickle.

    tensors   "model.NAME", "ema.NAME", "optimizer.PARAMETER.ENTRY"
    metadata  under "vision_longformer": {"format_version", "content": "training", "progress", "model", "scaler", ...}

It is written beside its place, synced and renamed, so that a crash at any moment leaves the old file or the new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vision_longformer.training.config import TrainConfig
from vision_longformer.utils import strict_json, tensor_files
from vision_longformer.utils.words import shown
from vision_longformer.weights import METADATA_KEY

FORMAT_VERSION = 1
CONTENT = "training"
PARTS = ("model", "ema", "optimizer")  # of the tensors, by the beginnings of their names
OUT_OF_PATIENCE = "the run ends, as schedule.patience says: no evaluation was better than that after epoch"
LONGEST = 1e12  # steps or seconds of a run


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

    def is_out_of_patience(self, config: TrainConfig) -> bool:
        """Tell whether as many evaluations as `schedule.patience` says were no better than the best one."""
        patience, every = config.schedule.patience, config.logging.evaluate_every_epochs
        if patience is None or self.best is None:
            return False
        return self.evaluated_epochs // every - self.best_epoch // every >= patience


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
    try:
        tensor_files.write_tensors(path, checkpoint.tensors, {METADATA_KEY: json.dumps(metadata)})
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error)
        kept = "; the previous checkpoint is intact" if previous and path.stat().st_ino == previous else ""
        raise OSError(f"{path}: cannot be written ({reason}){kept}") from error


def read(path: Path, *, verify: bool = True) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: The file; of one without digests, which is older, a note is logged.
        verify: Whether to compare with the digests that `write` wrote.

    Raises:
        ValueError: It is no checkpoint of a training run, or damaged.
    """
    try:
        tensors, metadata = tensor_files.read_tensors(path, verify=verify)
        about = strict_json.parse(metadata.get(METADATA_KEY, "null"))
    except tensor_files.DamagedError as error:
        raise ValueError(f"{error}. Without it the run begins anew") from error
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as a checkpoint ({error})") from error
    if not isinstance(about, dict) or about.get("content") != CONTENT:
        raise ValueError(f"{path}: is not the checkpoint of a training run")
    version = about.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version is {shown(version)}, this version of the library reads {FORMAT_VERSION}"
        )
    try:
        progress = _progress(about.get("progress"))
        for name in tensors:
            if name.partition(".")[0] not in PARTS:
                raise ValueError(f"{shown(name)} belongs to no part of it; these are {', '.join(PARTS)}")
    except ValueError as error:
        raise ValueError(f"{path}: is damaged: {error}") from error
    more = {key: value for key, value in about.items() if key not in ("format_version", "content", "progress")}
    return Checkpoint(tensors, progress, more)


def _progress(values: object) -> Progress:
    """Return where a run stands, if each field is there and possible."""
    kinds = {each.name: each for each in fields(Progress)}
    if not isinstance(values, dict) or values.keys() != kinds.keys():
        raise ValueError(f"its progress is {shown(values)}, and should have {', '.join(kinds)}")
    for name, value in values.items():
        counts = name in ("step", "evaluated_epochs", "best_epoch")
        is_none = name == "best" and value is None
        number = isinstance(value, int if counts else int | float) and not isinstance(value, bool)
        if not is_none and not (number and (name == "best" or 0 <= value < LONGEST)):
            raise ValueError(f"its progress says {name}={shown(value)}")
    return Progress(**values)


def optimizer_tensors(optimizer: Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return an optimiser's state under the names of the parameters."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}.{entry}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for entry, value in state.items()
    }


def restore_optimizer(optimizer: Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the state that `optimizer_tensors` returned.

    Raises:
        ValueError: An entry is of no parameter, or of another shape than it.
    """
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        parameter_name, _, entry = name.rpartition(".")
        if parameter_name not in parameters:
            raise ValueError(f"the optimizer's {shown(name)} is of no parameter of the model")
        parameter = parameters[parameter_name]
        if tensor.ndim and tensor.shape != parameter.shape:
            raise ValueError(f"the optimizer's {name} is {tuple(tensor.shape)}, the parameter {tuple(parameter.shape)}")
        on_device = entry != "step" or parameter.is_cuda  # AdamW counts its steps on the CPU, unless it is fused
        optimizer.state[parameter][entry] = tensor.to(parameter.device) if on_device else tensor
