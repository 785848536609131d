"""What a stopped run needs to go on: which block is next, and the tokens that its map's file does not hold.

A run that is finished leaves its result, so that what is done with it can fail and be done again.

G global tokens, C channels
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision_longformer.streaming.maps import FileMap, StageMap
from vision_longformer.utils import strict_json
from vision_longformer.utils.distributed import Processes
from vision_longformer.utils.tensor_files import read_tensors, write_tensors

METADATA_KEY = "vision_longformer"
FORMAT_VERSION = 1
FILE = "progress.safetensors"
NEXT = "progress-next.safetensors"  # until all processes have theirs

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
        stage: That the next block belongs to, counted from 0.
        block: The next block of that stage, counted from 0.
        held: Its map.
        global_tokens: (G, C), as they enter it.
        outputs: By stage, counted from 0.
    """

    stage: int
    block: int
    held: StageMap
    global_tokens: Tensor
    outputs: dict[int, Output] = field(default_factory=dict)

    @property
    def place(self) -> tuple[int, ...]:
        """What grows from checkpoint to checkpoint."""
        return (0, self.stage, self.block)


@dataclass(frozen=True)
class Finished:
    """A run that is over.

    Attributes:
        embedding: (C,).
        outputs: By stage, counted from 0.
    """

    embedding: Tensor
    outputs: dict[int, Output]

    @property
    def place(self) -> tuple[int, ...]:
        """What grows from checkpoint to checkpoint."""
        return (1,)


State = Checkpoint | Finished


class Store:
    """Keeps how far a run is in a folder: one for each of the processes that share an image.

    All of them have to go on from the same place. So each writes how far it is beside what it wrote before, in whose
    place it is put once all have done so. Whenever they are stopped, there is a place that all have noted.

    Args:
        folder: Of this process.
        fingerprint: Of the image, the model, the settings and the strip; None to keep nothing.
        processes: That share the image.
    """

    def __init__(self, folder: Path, fingerprint: str | None, processes: Processes) -> None:
        self._folder, self._fingerprint, self._processes = folder, fingerprint, processes

    def save(self, state: State) -> None:
        """Note how far all processes are, once their maps have reached the disk; all of them call this.

        Raises:
            OSError: One of them cannot be written.
        """
        if self._fingerprint is None:
            return
        with self._processes.together():
            _save(self._folder / NEXT, self._fingerprint, state)
        with self._processes.together():
            (self._folder / NEXT).replace(self._folder / FILE)

    def load(self, tops: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> State | None:
        """Return how far all processes were; all of them call this.

        None if they never came so far, or something of it is missing or damaged: what is kept is compared with the
        digests that were written with it.

        Args:
            tops: The first row of this process's strip of each stage.
            dtype: Of maps.
            device: Where their rows and the tokens go.
        """
        found: dict[tuple[int, ...], tuple[str, State]] = {}
        for name in (FILE, NEXT):
            if self._fingerprint is not None and (
                state := _load(self._folder, name, self._fingerprint, tops, dtype=dtype, device=device)
            ):
                found[state.place] = (name, state)
        common = set.intersection(*map(set, self._processes.gather(list(found))))
        chosen = found[max(common)] if common else None
        for name in (FILE, NEXT):  # of another run, whose maps will be overwritten, or further than all processes are
            if chosen is None or name != chosen[0]:
                (self._folder / name).unlink(missing_ok=True)
        return None if chosen is None else chosen[1]


def _save(path: Path, fingerprint: str, state: State) -> None:
    about: dict[str, Any] = {"format_version": FORMAT_VERSION, "fingerprint": fingerprint}
    maps: dict[str, StageMap] = {f"stage{number}": output.map for number, output in state.outputs.items()}
    tensors = {f"stage{number}.global_tokens": output.global_tokens for number, output in state.outputs.items()}
    if isinstance(state, Finished):
        tensors["embedding"] = state.embedding
    else:
        about |= {"stage": state.stage, "block": state.block}
        maps["held"], tensors["held.global_tokens"] = state.held, state.global_tokens
    files = {}
    for name, stage_map in maps.items():
        assert isinstance(stage_map, FileMap)
        stage_map.sync()
        files[name] = {"file": stage_map.path.name, "shape": stage_map.shape}
        tensors[f"{name}.digests"] = stage_map.digests
        if stage_map.valid is not None:
            tensors[f"{name}.valid"] = stage_map.valid
    write_tensors(path, tensors, {METADATA_KEY: json.dumps({**about, "maps": files})})


def _load(folder: Path, file: str, fingerprint: str, tops: Sequence[int], **how: Any) -> State | None:
    if not (folder / file).exists():
        return None
    try:
        tensors, metadata = read_tensors(folder / file)
        about = strict_json.parse(metadata.get(METADATA_KEY, "{}"))
        if about.get("format_version") != FORMAT_VERSION or about.get("fingerprint") != fingerprint:
            return None
        maps = {}
        for name, entry in about["maps"].items():
            stage = about["stage"] if name == "held" else int(name.removeprefix("stage"))
            maps[name] = _open_map(folder, name, entry, tensors, top=tops[stage], **how)
        outputs = {
            int(name.removeprefix("stage")): Output(stage_map, tensors[f"{name}.global_tokens"].to(how["device"]))
            for name, stage_map in maps.items()
            if name != "held"
        }
        if "embedding" in tensors:
            return Finished(tensors["embedding"].to(how["device"]), outputs)
        tokens = tensors["held.global_tokens"].to(how["device"])
        return Checkpoint(about["stage"], about["block"], maps["held"], tokens, outputs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
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
