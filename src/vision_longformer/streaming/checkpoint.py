"""What a stopped run needs to go on: which block is next, and the tokens that its map's file does not hold.

A run that is finished leaves its result, so that what is done with it can fail and be done again.

G global tokens, C channels
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision_longformer.streaming.maps import FileMap, StageMap
from vision_longformer.utils import strict_json
from vision_longformer.utils.tensor_files import read_tensors, write_tensors

METADATA_KEY = "vision_longformer"
FORMAT_VERSION = 1
FILE = "progress.safetensors"

logger = logging.getLogger(__name__)


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
        tensors[f"{name}.digests"] = stage_map.digests
        if stage_map.valid is not None:
            tensors[f"{name}.valid"] = stage_map.valid
    about = {"format_version": FORMAT_VERSION, **about, "maps": files}
    write_tensors(folder / FILE, tensors, {METADATA_KEY: json.dumps(about)})


def load_checkpoint(
    folder: Path, fingerprint: str, *, dtype: torch.dtype, device: torch.device
) -> Checkpoint | Finished | None:
    """Return where a run with this fingerprint stopped.

    None if it never came so far, or something of it is missing or damaged: what is kept is compared with the digests
    that were written with it.
    """
    if not (folder / FILE).exists():
        return None
    try:
        tensors, metadata = read_tensors(folder / FILE)
        about = strict_json.parse(metadata.get(METADATA_KEY, "{}"))
        if about.get("format_version") != FORMAT_VERSION or about.get("fingerprint") != fingerprint:
            return None
        maps = {
            name: _open_map(folder, name, entry, tensors, dtype=dtype, device=device)
            for name, entry in about["maps"].items()
        }
        outputs = {
            int(name.removeprefix("stage")): Output(stage_map, tensors[f"{name}.global_tokens"].to(device))
            for name, stage_map in maps.items()
            if name != "held"
        }
        if "embedding" in tensors:
            return Finished(fingerprint, tensors["embedding"].to(device), outputs)
        tokens = tensors["held.global_tokens"].to(device)
        return Checkpoint(fingerprint, about["stage"], about["block"], maps["held"], tokens, outputs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s: cannot be gone on from, so the image is begun anew (%s)", folder, error)
        return None


def _open_map(folder: Path, name: str, entry: Mapping[str, Any], tensors: Mapping[str, Tensor], **how: Any) -> FileMap:
    path, shape = folder / entry["file"], tuple(entry["shape"])
    if path.parent != folder or path.stat().st_size != math.prod(shape) * how["dtype"].itemsize:
        raise ValueError(f"{path}: is not the map that was kept")
    found = FileMap(path, shape, **how)
    found.valid = tensors.get(f"{name}.valid")
    digests = tensors.get(f"{name}.digests")
    if digests is not None:
        found.check(digests)
    return found
