"""The published code's checkpoints: their architecture strings, options and entries.

The published code is microsoft/vision-longformer. Its stage s is `layer{s}`: entry 0 the patch embedding, then
alternately attention and MLP blocks; then `norm` and `head`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vision_longformer.config import WindowShape

_LETTERS = {
    "l": "stage",
    "h": "heads",
    "d": "width",
    "n": "blocks",
    "s": "use_attn_type",
    "g": "global_tokens",
    "p": "patch",
    "f": "window",
    "a": "absolute",
}
WINDOW_SHAPES: dict[int, WindowShape] = {0: "chunk", 1: "exact", -1: "cyclic"}


@dataclass(frozen=True)
class ReferenceStage:
    """One stage of an architecture string, with the published defaults for letters that are missing.

    `window` is the published letter f: it holds k for Linformer, m for performer and R for spatial reduction.
    """

    stage: int
    heads: int = 3
    width: int = 192
    blocks: int = 1
    use_attn_type: int = 1
    global_tokens: int = 1
    patch: int = 2
    window: int = 7
    absolute: int = 1


@dataclass(frozen=True)
class ReferenceOptions:
    """Options of the published code that a checkpoint does not hold, under their published names and defaults.

    Attributes:
        num_classes: Outputs of the classifier.
        norm_embed: Whether patch embeddings end in a LayerNorm.
        sharew: Whether global tokens share the projections of local ones.
        share_kv: Whether Linformer shares its projection of keys and values.
        attn_type: "longformerhand" or "longformerauto" for windowed attention, "full", "linformer", "srformer" for
            spatial reduction, "performer".
        sw_exact: 0 whole chunks, 1 exact windows, −1 cyclic chunks.
        mode: 0 all neighbours, −1 the own chunk only, any positive number random shift.
        only_glo: Local tokens see the global tokens alone.
        avg_pool: Average the last stage's tokens even if it has a global token.
    """

    num_classes: int = 1000
    norm_embed: bool = True
    sharew: bool = True
    share_kv: bool = True
    attn_type: str = "longformerhand"
    sw_exact: int = 0
    mode: int = 0
    only_glo: bool = False
    avg_pool: bool = False

    def __post_init__(self) -> None:
        kinds = ("longformerhand", "longformerauto", "full", "linformer", "srformer", "performer")
        if self.attn_type not in kinds:
            raise ValueError(f"attn_type={self.attn_type!r}: must be one of {', '.join(map(repr, kinds))}")
        if self.sw_exact not in WINDOW_SHAPES:
            raise ValueError(f"sw_exact={self.sw_exact!r}: must be 0, 1 or -1")
        if self.mode < -1:
            raise ValueError(f"mode={self.mode!r}: must be -1, 0 or positive")


@dataclass
class ConversionReport:
    """What became of a checkpoint's entries.

    Attributes:
        renamed: (entries of the checkpoint, entry of the model), joined where it is more than one.
        resized: Tables that were fitted to another kind of attention or size.
        derived: Entries that repeat others or follow from the configuration, and were checked or ignored.
    """

    renamed: list[tuple[str, str]] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    derived: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Return how many entries met each fate, and the resized tables by name."""
        entries, targets = {old for old, _ in self.renamed}, {new for _, new in self.renamed}
        lines = [
            f"{len(entries)} entries became {len(targets)} tensors ({len(self.resized)} of them resized), "
            f"{len(self.derived)} entries follow from others"
        ]
        return "\n".join([*lines, *(f"  resized {line}" for line in self.resized)])


def parse_architecture(arch: str) -> list[ReferenceStage]:
    """Parse an architecture string of the published code.

    Raises:
        ValueError: Names the part that is wrong.
    """
    stages = []
    for number, text in enumerate(arch.split("_"), start=1):
        values: dict[str, int] = {}
        for part in text.split(","):
            match = re.fullmatch(r"([a-z])(\d+)", part.strip())
            if match is None or match[1] not in _LETTERS:
                letters = ", ".join(f"{letter} {name}" for letter, name in _LETTERS.items())
                raise ValueError(f"arch: {part!r} in stage {number} is not a letter and a number ({letters})")
            if _LETTERS[match[1]] in values:
                raise ValueError(f"arch: stage {number} sets {match[1]!r} twice")
            values[_LETTERS[match[1]]] = int(match[2])
        if values.get("stage") != number:
            raise ValueError(f"arch: stage {number} must start with 'l{number}', got {text!r}")
        stages.append(ReferenceStage(**values))
    return stages


class ReferenceEntries:
    """A checkpoint's entries, what became of them, and what is wrong with them.

    Attributes:
        tensors: The entries.
        converted: Entries of the model.
        report: What became of each.
        problems: A line for each entry that is missing, misshapen or unequal to what it repeats.
        unused: Names of entries that are not accounted for.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        state = state["net"] if isinstance(state.get("net"), Mapping) else state
        self.tensors: dict[str, Tensor] = {}
        for name, tensor in state.items():
            if not isinstance(tensor, Tensor):
                raise ValueError(f"{name}: expected a tensor, got {type(tensor).__name__}: is this a state dict?")
            self.tensors[name.removeprefix("module.")] = tensor
        self.converted: dict[str, Tensor] = {}
        self.report = ConversionReport()
        self.problems: list[str] = []
        self.unused = set(self.tensors)

    def move(self, name: str, target: str, shape: tuple[int, ...]) -> Tensor:
        """Return an entry that becomes `target`; one that is missing or misshapen becomes a problem, and zeros."""
        self.unused.discard(name)
        self.report.renamed.append((name, target))
        tensor = self.tensors.get(name)
        if tensor is None:
            self.problems.append(f"missing: {name} {shape}")
        elif tuple(tensor.shape) != shape:
            self.problems.append(f"misshapen: {name} is {tuple(tensor.shape)}, expected {shape}")
        else:
            return tensor
        return torch.zeros(shape)

    def move_all(self, name: str, target: str, shape: tuple[int, ...]) -> None:
        """Convert an entry to `target` as it is."""
        self.converted[target] = self.move(name, target, shape)

    def move_layer(self, name: str, target: str, shape: tuple[int, ...]) -> None:
        """Convert a layer with a weight of `shape` and a bias of its first axis."""
        self.move_all(f"{name}.weight", f"{target}.weight", shape)
        self.move_all(f"{name}.bias", f"{target}.bias", shape[:1])

    def derive(self, name: str) -> None:
        """Account for an entry that follows from others."""
        if name in self.unused:
            self.unused.discard(name)
            self.report.derived.append(name)

    def derive_repeated(self, layer: str, repeated: str) -> None:
        """Account for a layer that the published code stores under two names."""
        for kind in ("weight", "bias"):
            remedy = "if the global tokens have projections of their own, say sharew=False"
            self.derive_equal(f"{layer}.{kind}", f"{repeated}.{kind}", remedy=remedy)

    def derive_equal(self, name: str, repeated: str, *, remedy: str) -> None:
        """Account for a tensor that the published code stores under two names."""
        first, second = self.tensors.get(name), self.tensors.get(repeated)
        if first is not None and second is not None and not torch.equal(first, second):
            self.problems.append(f"unequal: {repeated} and {name} should be one tensor; {remedy}")
        self.derive(repeated)

    def raise_problems(self, *, image_size: tuple[int, int]) -> None:
        """Raise a ValueError if anything is missing, misshapen or left over."""
        unexpected = [f"unexpected: {name} {tuple(self.tensors[name].shape)}" for name in sorted(self.unused)]
        problems = self.problems + unexpected
        if not problems:
            return
        hint = ""
        if any("pos_embed" in problem or "local_relative" in problem for problem in self.problems):
            hint = (
                f"\nPosition tables are sized by the image size the checkpoint was trained at, given as {image_size}."
            )
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ValueError(f"the checkpoint does not fit this architecture:\n{lines}{hint}")
