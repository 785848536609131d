"""What a model is made of, as frozen dataclasses that refuse impossible values when they are built.

Sizes are (height, width). The named choices are those of the paper (https://arxiv.org/abs/2103.15358); the
released configurations are in `variants.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from vision_longformer.utils.checks import (
    MAX_NUMBER,
    impossible,
    is_number,
    require_booleans,
    require_choice,
    require_integer,
    require_integers,
)
from vision_longformer.utils.words import shown

WindowShape = Literal["chunk", "exact", "cyclic"]
Neighbours = Literal["all", "own", "random"]
Position = Literal["relative", "absolute", "none"]
GlobalPool = Literal["token", "avg", ""]
T = TypeVar("T")

# Far beyond what is of use. A description with more is damaged, or made to fill memory.
MAX_DEPTH = 512  # blocks in a stage
MAX_WIDTH = 2**16  # channels, of images too
MAX_PATCH_SIZE = 1024
MAX_WINDOW_SIZE = 1024
MAX_RATIO = 1024  # of spatial reduction
MAX_GLOBAL_TOKENS = 2**16
MAX_FEATURES = 2**16  # of Linformer and Performer
MAX_IMAGE_SIDE = MAX_NUMBER  # that position tables are sized for: images may be larger
MAX_CLASSES = MAX_NUMBER


def _require_stages(stages: Sequence[object]) -> None:
    if len(stages) not in (3, 4):
        raise impossible("stages", len(stages), "must be 3 or 4 stages")


@dataclass(frozen=True)
class Windowed:
    """The paper's attention: each token sees its own chunk, chunks around it and the global tokens (section 3.1).

    Attributes:
        window_size: Side w of a chunk, in tokens.
        shape: "chunk" sees whole neighbour chunks, "exact" only keys within w rows and w columns, "cyclic" lets the
            chunks wrap around the edges of the map.
        neighbours: "all" 8 around the own chunk, "own" none of them, or "random": one drawn in each training
            forward pass (the paper's random shifting), all 8 in evaluation.
        shared_global_projections: Whether global tokens use the query, key, value and output projections of the
            local tokens.
    """

    window_size: int = 7
    shape: WindowShape = "chunk"
    neighbours: Neighbours = "all"
    shared_global_projections: bool = True

    def __post_init__(self) -> None:
        require_integers(self, "window_size", maximum=MAX_WINDOW_SIZE)
        require_choice(self, "shape", WindowShape)
        require_choice(self, "neighbours", Neighbours)
        require_booleans(self, "shared_global_projections")
        if self.shape == "exact" and self.neighbours == "random":
            rule = "random neighbours need whole chunks: use shape 'chunk' or 'cyclic' instead of 'exact'"
            raise impossible("neighbours", self.neighbours, rule)


@dataclass(frozen=True)
class Full:
    """Ordinary attention: every token sees every token."""


@dataclass(frozen=True)
class GlobalOnly:
    """Local tokens see the global tokens alone; global tokens see everything."""

    shared_global_projections: bool = True

    def __post_init__(self) -> None:
        require_booleans(self, "shared_global_projections")


@dataclass(frozen=True)
class Linformer:
    """Keys and values are projected along the token axis to a fixed number of rows by learned matrices.

    Attributes:
        num_features: Rows k that all tokens are projected to.
        shared_projection: Whether keys and values are projected by the same matrix.
    """

    num_features: int = 256
    shared_projection: bool = True

    def __post_init__(self) -> None:
        require_integers(self, "num_features", maximum=MAX_FEATURES)
        require_booleans(self, "shared_projection")


@dataclass(frozen=True)
class SpatialReduction:
    """Keys and values come from a map that a convolution has reduced (PVT's SRA).

    Attributes:
        ratio: Side R of the square of tokens that becomes one.
    """

    ratio: int

    def __post_init__(self) -> None:
        require_integers(self, "ratio", maximum=MAX_RATIO)


@dataclass(frozen=True)
class Performer:
    """Softmax attention approximated with random features (FAVOR+).

    Attributes:
        num_features: Random features m of each query and key.
    """

    num_features: int = 256

    def __post_init__(self) -> None:
        require_integers(self, "num_features", maximum=MAX_FEATURES)


Attention = Windowed | Full | GlobalOnly | Linformer | SpatialReduction | Performer
_ATTENTION_KINDS: dict[str, type[Attention]] = {
    "windowed": Windowed,
    "full": Full,
    "global_only": GlobalOnly,
    "linformer": Linformer,
    "spatial_reduction": SpatialReduction,
    "performer": Performer,
}


@dataclass(frozen=True)
class StageConfig:
    """One stage: a patch embedding, then `depth` blocks.

    Attributes:
        depth: Number of blocks.
        width: Channels C.
        num_heads: Attention heads; divides `width`.
        patch_size: Side and stride of the patch convolution, in positions of the stage's input.
        num_global_tokens: Learned tokens that see, and are seen by, the whole map.
        position: "relative" biases in attention, an "absolute" embedding of the tokens, or "none".
        attention: The mechanism and its settings.
    """

    depth: int
    width: int
    num_heads: int
    patch_size: int = 2
    num_global_tokens: int = 1
    position: Position = "relative"
    attention: Attention = Windowed()

    def __post_init__(self) -> None:
        limits = {"depth": MAX_DEPTH, "width": MAX_WIDTH, "num_heads": MAX_WIDTH, "patch_size": MAX_PATCH_SIZE}
        for field, maximum in limits.items():
            require_integers(self, field, maximum=maximum)
        require_integers(self, "num_global_tokens", minimum=0, maximum=MAX_GLOBAL_TOKENS)
        require_choice(self, "position", Position)
        if self.width % self.num_heads != 0:
            raise impossible("num_heads", self.num_heads, f"must divide the width {self.width}")
        if self.position == "absolute" and self.width % 2 != 0:
            rule = "must be even: half of an absolute position embedding tells the row, half the column"
            raise impossible("width", self.width, rule)
        if not isinstance(self.attention, Attention):
            kinds = ", ".join(kind.__name__ for kind in _ATTENTION_KINDS.values())
            raise impossible("attention", self.attention, f"must be a {kinds} configuration")
        if isinstance(self.attention, GlobalOnly) and self.num_global_tokens == 0:
            rule = "global-only attention needs at least one global token, as local tokens see nothing else"
            raise impossible("num_global_tokens", self.num_global_tokens, rule)
        if isinstance(self.attention, Linformer | SpatialReduction | Performer) and self.position == "relative":
            rule = f"{type(self.attention).__name__} attention has no biases by relative position: use 'absolute'"
            raise impossible("position", self.position, rule)

    @property
    def is_local(self) -> bool:
        """Whether a token's keys on the map are near it, or there are none, so that a map can go by rows."""
        return isinstance(self.attention, GlobalOnly) or (
            isinstance(self.attention, Windowed) and self.attention.shape != "cyclic"
        )

    @property
    def step(self) -> int:
        """Rows in a chunk row: the side of a window, or 1 without windows."""
        return self.attention.window_size if isinstance(self.attention, Windowed) else 1

    @property
    def halo(self) -> int:
        """Rows of keys that a band of the map sees above and below itself."""
        return self.step if isinstance(self.attention, Windowed) and self.attention.neighbours != "own" else 0


@dataclass(frozen=True)
class ModelConfig:
    """A whole model.

    Attributes:
        stages: Three or four stages, first to last.
        image_size: (height, width) in pixels that position tables are sized for. Other sizes work in every call;
            an integer stands for a square.
        in_chans: Channels of the input image.
        num_classes: Outputs of the classifier; 0 for none.
        global_pool: What the head pools: "token", global token 0 of the last stage; "avg", the mean over all its
            tokens, global ones included; "" nothing.
        norm_embed: Whether patch embeddings end in a LayerNorm.
        drop_rate: Dropout after the embeddings and before the classifier.
        drop_path_rate: Drop path of the last block; it grows linearly from 0 at the first.
    """

    stages: tuple[StageConfig, ...]
    image_size: tuple[int, int] = (224, 224)
    in_chans: int = 3
    num_classes: int = 1000
    global_pool: GlobalPool = "avg"
    norm_embed: bool = True
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.image_size, int):
            object.__setattr__(self, "image_size", (self.image_size, self.image_size))
        for field in ("stages", "image_size"):
            value = getattr(self, field)
            if not isinstance(value, Sequence):
                raise impossible(field, value, "must be a sequence")
            object.__setattr__(self, field, tuple(value))
        if not all(isinstance(stage, StageConfig) for stage in self.stages):
            raise impossible("stages", self.stages, "must hold StageConfig objects")
        _require_stages(self.stages)
        if len(self.image_size) != 2:
            raise impossible("image_size", self.image_size, "must be (height, width)")
        for side in self.image_size:
            require_integer("image_size", side, minimum=1, maximum=MAX_IMAGE_SIDE)
        require_integers(self, "in_chans", maximum=MAX_WIDTH)
        require_integers(self, "num_classes", minimum=0, maximum=MAX_CLASSES)
        require_choice(self, "global_pool", GlobalPool)
        require_booleans(self, "norm_embed")
        for field in ("drop_rate", "drop_path_rate"):
            rate = getattr(self, field)
            if not (is_number(rate) and 0 <= rate < 1):
                raise impossible(field, rate, "must be a number from 0 up to, but not including, 1")
        if self.global_pool == "token" and self.stages[-1].num_global_tokens == 0:
            raise impossible("global_pool", self.global_pool, "the last stage has no global token to pool: use 'avg'")

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per token along one axis, for each stage."""
        strides, stride = [], 1
        for stage in self.stages:
            stride *= stage.patch_size
            strides.append(stride)
        return tuple(strides)

    def grid_size(self, stage: int) -> tuple[int, int]:
        """Return the (height, width) in tokens of stage number `stage`, counted from 0, at `image_size`."""
        height, width = self.image_size
        stride = self.strides[stage]
        return -(-height // stride), -(-width // stride)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, lists, strings and numbers, as `from_dict` reads and JSON can store them."""
        values = dataclasses.asdict(self)
        values["image_size"] = list(self.image_size)
        values["stages"] = [
            {**dataclasses.asdict(stage), "attention": _attention_to_dict(stage.attention)} for stage in self.stages
        ]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Build a configuration from `to_dict`'s form.

        Raises:
            ValueError: A field is missing, unknown or has an impossible value.
        """
        fields = dict(values)
        if isinstance(fields.get("stages"), Sequence):
            _require_stages(fields["stages"])
            fields["stages"] = tuple(_stage_from_dict(*numbered) for numbered in enumerate(fields["stages"], start=1))
        return _build(cls, fields)


def _stage_from_dict(number: int, values: object) -> StageConfig:
    if not isinstance(values, Mapping):
        raise ValueError(f"stages: stage {number} is {shown(values)}, not a mapping of fields")
    fields = dict(values)
    if "attention" in fields:
        fields["attention"] = _attention_from_dict(fields["attention"])
    return _build(StageConfig, fields)


def _attention_to_dict(attention: Attention) -> dict[str, Any]:
    kind = next(name for name, kind in _ATTENTION_KINDS.items() if isinstance(attention, kind))
    return {"kind": kind, **dataclasses.asdict(attention)}


def _attention_from_dict(values: object) -> Attention:
    if not isinstance(values, Mapping) or values.get("kind") not in tuple(_ATTENTION_KINDS):
        kinds = ", ".join(map(repr, _ATTENTION_KINDS))
        raise ValueError(f"attention={shown(values)}: must be a mapping whose 'kind' is one of {kinds}")
    settings = dict(values)
    kind = _ATTENTION_KINDS[settings.pop("kind")]
    return _build(kind, settings)


def _build(kind: type[T], values: Mapping[str, Any]) -> T:
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ValueError(f"{shown(name)[1:-1]}: {kind.__name__} has no such field; it has {', '.join(known)}")
    for name, field in known.items():
        if field.default is dataclasses.MISSING and name not in values:
            raise ValueError(f"{name}: {kind.__name__} needs this field")
    return kind(**values)
