"""Weights that come with the package: what there is, where it lies, and that it is whole.

`weights.json` beside this file lists them by name. Each is a weight file NAME.safetensors, with a model card NAME.md.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
TABLE = FOLDER / "weights.json"


class DamagedWeightsError(ValueError):
    """A file is not what the package was made with."""


@dataclass(frozen=True)
class Shipped:
    """Weights of the package.

    Attributes:
        name: By which they are asked for: a model of timm's registry, or of a ready model.
        sha256: Of the file.
        task: What they were trained for.
        summary: What they are good for, in a sentence.
        tag: Of timm's registry, where the name is one of its models; says how they were trained.
    """

    name: str
    sha256: str
    task: str
    summary: str
    tag: str | None = None

    @property
    def path(self) -> Path:
        """The weight file."""
        return FOLDER / f"{self.name}.safetensors"

    @property
    def card(self) -> Path:
        """The model card: data, recipe, licences, figures, limits."""
        return FOLDER / f"{self.name}.md"

    def checked_path(self) -> Path:
        """Return the weight file, if it is whole.

        Raises:
            DamagedWeightsError: It is missing or has changed.
        """
        again = "install the package again"
        try:
            found = hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError as error:
            raise DamagedWeightsError(f"{self.path}: cannot be read ({error.strerror}); {again}") from error
        if found != self.sha256:
            digests = f"its SHA-256 begins {found[:12]}, not {self.sha256[:12]}"
            raise DamagedWeightsError(f"{self.path}: is damaged ({digests}); {again}")
        return self.path


@functools.cache
def shipped() -> Mapping[str, Shipped]:
    """Return all weights of the package by name."""
    if not TABLE.exists():
        return {}
    entries = json.loads(TABLE.read_text(encoding="utf-8"))
    return {name: Shipped(name, **entry) for name, entry in entries.items()}


def backbones() -> dict[str, Shipped]:
    """Return those whose names are models of timm's registry."""
    return {name: entry for name, entry in shipped().items() if entry.tag is not None}


def ready_models() -> dict[str, Shipped]:
    """Return those that are trained for a task: `vil predict --model NAME`."""
    return {name: entry for name, entry in shipped().items() if entry.tag is None}


def find_weights(checkpoint: str | Path) -> Path:
    """Return the weight file that a person means: a path, or the name of weights of the package.

    Raises:
        FileNotFoundError: It is neither; names those of the package.
        DamagedWeightsError: The package's file has changed.
    """
    path = Path(checkpoint)
    if path.exists():
        return path
    if str(checkpoint) in shipped():
        return shipped()[str(checkpoint)].checked_path()
    names = ", ".join(shipped()) or "none yet"
    raise FileNotFoundError(f"{checkpoint}: no such file; weights that come with the package: {names}")
