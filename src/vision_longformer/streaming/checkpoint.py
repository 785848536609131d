"""What a stopped run needs to go on: which block is next, and the tokens that its map's file does not hold.

A run that is finished leaves its result, so that what is done with it can fail and be done again.

G global tokens, C channels
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vision_longformer.streaming.maps import FileMap, StageMap
from vision_longformer.utils.atomic_files import replacing

METADATA_KEY = "vision_longformer"
FORMAT_VERSION = 1
FILE = "progress.safetensors"


@dataclass(frozen=True)
class Output:
    """A stage that is done, and was asked for: its map and its (G, C) global tokens."""

    map: StageMap
    global_tokens: Tensor


@dataclass(frozen=True)
class Checkpoint:
    """A run between two passes.

    Attributes:
        fingerprint: Of the image, the model and the settings.
        stage: That the next block belongs to, counted from 0.
        block: The next block of that stage, counted from 0.
        held: Its map.
        global_tokens: (G, C), as they enter it.
        outputs: By stage, counted from 0.
    """

    fingerprint: str
    stage: int
    block: int
    held: FileMap
    global_tokens: Tensor
    outputs: dict[int, Output] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write it to `folder`, once its maps have reached the disk."""
        about = {"fingerprint": self.fingerprint, "stage": self.stage, "block": self.block}
        _save(folder, about, {"held.global_tokens": self.global_tokens}, {"held": self.held}, self.outputs)


@dataclass(frozen=True)
class Finished:
    """A run that is over.

    Attributes:
        fingerprint: Of the image, the model and the settings.
        embedding: (C,).
        outputs: By stage, counted from 0.
    """

    fingerprint: str
    embedding: Tensor
    outputs: dict[int, Output]

    def save(self, folder: Path) -> None:
        """Write it to `folder`, once its maps have reached the disk."""
        _save(folder, {"fingerprint": self.fingerprint}, {"embedding": self.embedding}, {}, self.outputs)


def _save(
    folder: Path,
    about: dict[str, Any],
    tensors: dict[str, Tensor],
    held: dict[str, FileMap],
    outputs: dict[int, Output],
) -> None:
    maps: dict[str, StageMap] = {**held, **{f"stage{number}": output.map for number, output in outputs.items()}}
    tensors = tensors | {f"stage{number}.global_tokens": output.global_tokens for number, output in outputs.items()}
    files = {}
    for name, stage_map in maps.items():
        assert isinstance(stage_map, FileMap)
        stage_map.sync()
        files[name] = {"file": stage_map.path.name, "shape": stage_map.shape}
        if stage_map.valid is not None:
            tensors[f"{name}.valid"] = stage_map.valid
    about = {"format_version": FORMAT_VERSION, **about, "maps": files}
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(folder / FILE) as temporary:
        save_file(kept, temporary, metadata={METADATA_KEY: json.dumps(about)})


def load_checkpoint(
    folder: Path, fingerprint: str, *, dtype: torch.dtype, device: torch.device
) -> Checkpoint | Finished | None:
    """Return where a run with this fingerprint stopped; None if it never came so far, or files are missing."""
    try:
        with safe_open(folder / FILE, framework="pt") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            if about.get("format_version") != FORMAT_VERSION or about.get("fingerprint") != fingerprint:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dictionary
    except (SafetensorError, OSError, ValueError):
        return None
    maps: dict[str, FileMap] = {}
    for name, entry in about["maps"].items():
        path = folder / entry["file"]
        height, width, channels = entry["shape"]
        if not path.exists() or path.stat().st_size != height * width * channels * dtype.itemsize:
            return None
        maps[name] = FileMap(path, (height, width, channels), dtype, device)
        maps[name].valid = tensors.get(f"{name}.valid")
    outputs = {
        int(name.removeprefix("stage")): Output(stage_map, tensors[f"{name}.global_tokens"].to(device))
        for name, stage_map in maps.items()
        if name != "held"
    }
    if "embedding" in tensors:
        return Finished(fingerprint, tensors["embedding"].to(device), outputs)
    tokens = tensors["held.global_tokens"].to(device)
    return Checkpoint(fingerprint, about["stage"], about["block"], maps["held"], tokens, outputs)
