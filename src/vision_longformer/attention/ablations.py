"""The mechanisms of the paper's comparison, by name, with its settings and its figures for *small*.

Each replaces the attention of a model's stages: in all of them, or, in a "partial" form, in stages 1 and 2, with full
attention in stages 3 and 4. Figures: Zhang et al., ICCV 2021, https://arxiv.org/abs/2103.15358, section 4.3.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any

from vision_longformer.config import (
    Attention,
    Full,
    GlobalOnly,
    GlobalPool,
    Linformer,
    ModelConfig,
    Performer,
    SpatialReduction,
    Windowed,
)

PARTIAL = "partial_"


@dataclass(frozen=True)
class PublishedComparison:
    """Published figures of *small* with absolute positions, at 224×224.

    Attributes:
        top1: ImageNet-1K top-1 in percent.
        parameters: Number of them.
        multiply_adds: As published; see `docs/attention.md` for those that count other things than we do.
    """

    top1: float
    parameters: float
    multiply_adds: float


@dataclass(frozen=True)
class Mechanism:
    """What a name stands for.

    Attributes:
        attention: Of stages 1 to 4. None stands for windowed attention with the model's own windows.
        num_global_tokens: Of stages 1 to 4; None keeps the model's.
        global_pool: What the head pools; None keeps the model's.
        published: Figures, None if there are none.
    """

    attention: tuple[Attention | None, ...]
    num_global_tokens: tuple[int, ...] | None = None
    global_pool: GlobalPool | None = None
    published: PublishedComparison | None = None


def _partial(first: Attention | None, second: Attention | None) -> tuple[Attention | None, ...]:
    return first, second, Full(), Full()


_LINFORMER, _PERFORMER, _GLOBAL = Linformer(num_features=256), Performer(num_features=256), GlobalOnly()

MECHANISMS = {
    "windowed": Mechanism((None,) * 4),
    "full": Mechanism((Full(),) * 4, published=PublishedComparison(81.9, 24.6e6, 6.95e9)),
    "linformer": Mechanism((_LINFORMER,) * 4, published=PublishedComparison(81.0, 26.3e6, 5.62e9)),
    # The paper's SRA/64: a token of the reduced map of stage 1 covers 64×64 pixels.
    "spatial_reduction": Mechanism(
        tuple(SpatialReduction(ratio) for ratio in (16, 8, 4, 2)), published=PublishedComparison(76.4, 52.9e6, 3.97e9)
    ),
    # SRA/32
    "spatial_reduction_32": Mechanism(
        (*(SpatialReduction(ratio) for ratio in (8, 4, 2)), Full()), published=PublishedComparison(79.9, 31.1e6, 4.28e9)
    ),
    "global_only": Mechanism(
        (_GLOBAL,) * 4,
        num_global_tokens=(256, 256, 64, 16),
        global_pool="token",
        published=PublishedComparison(79.0, 24.9e6, 6.78e9),
    ),
    "performer": Mechanism((_PERFORMER,) * 4, published=PublishedComparison(78.7, 24.8e6, 6.26e9)),
    # The published form of Vision Longformer itself.
    f"{PARTIAL}windowed": Mechanism(_partial(None, None), published=PublishedComparison(82.0, 24.6e6, 5.12e9)),
    f"{PARTIAL}linformer": Mechanism(
        _partial(_LINFORMER, _LINFORMER), published=PublishedComparison(81.8, 25.8e6, 5.21e9)
    ),
    f"{PARTIAL}spatial_reduction": Mechanism(
        _partial(SpatialReduction(8), SpatialReduction(4)), published=PublishedComparison(81.6, 26.4e6, 4.57e9)
    ),
    f"{PARTIAL}global_only": Mechanism(
        _partial(_GLOBAL, _GLOBAL),
        num_global_tokens=(256, 256, 1, 0),
        published=PublishedComparison(81.4, 24.9e6, 6.3e9),
    ),
    f"{PARTIAL}performer": Mechanism(
        _partial(_PERFORMER, _PERFORMER), published=PublishedComparison(81.7, 24.7e6, 5.52e9)
    ),
}


def list_mechanisms() -> list[str]:
    """Return the names that `with_attention` and `create_model(attention=...)` take."""
    return list(MECHANISMS)


def find_mechanism(name: str, *, partial: bool = False) -> Mechanism:
    """Return what a name stands for; with `partial`, its partial form.

    Raises:
        ValueError: There is no such mechanism; suggests the nearest.
    """
    wanted = f"{PARTIAL}{name}" if partial and not name.startswith(PARTIAL) else name
    if wanted not in MECHANISMS and name == "spatial_reduction_32" and partial:
        wanted = f"{PARTIAL}spatial_reduction"  # its ratios in stages 1 and 2 are these
    if wanted not in MECHANISMS:
        if partial and name in MECHANISMS:
            raise ValueError(f"attention={name!r}: has no partial form, as partial models have full attention anyway")
        close = difflib.get_close_matches(name, MECHANISMS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"attention={name!r}: there is no such mechanism; {hint}they are {', '.join(MECHANISMS)}, and any "
            "configuration, such as Linformer(num_features=64)"
        )
    return MECHANISMS[wanted]


def with_attention(config: ModelConfig, attention: str | Attention, *, partial: bool = False) -> ModelConfig:
    """Return `config` with another mechanism in its stages.

    Args:
        config: Of any model. Mechanisms without biases by relative position need one with absolute positions.
        attention: A name, with the paper's settings for each stage, or one configuration for all stages.
        partial: Stages 1 and 2 only; stages 3 and 4 get full attention.

    Raises:
        ValueError: There is no such mechanism, or it does not go with a stage.
    """
    if isinstance(attention, str):
        mechanism = find_mechanism(attention, partial=partial)
    elif isinstance(attention, Attention):
        mechanism = Mechanism(_partial(attention, attention) if partial else (attention,) * 4)
    else:
        raise ValueError(f"attention={attention!r}: must be the name of a mechanism or its configuration")
    stages = []
    for number, stage in enumerate(config.stages):
        replacement = mechanism.attention[number]
        if replacement is None:
            replacement = stage.attention if isinstance(stage.attention, Windowed) else Windowed()
        changes: dict[str, Any] = {"attention": replacement}
        if mechanism.num_global_tokens is not None:
            changes["num_global_tokens"] = mechanism.num_global_tokens[number]
        try:
            stages.append(dataclasses.replace(stage, **changes))
        except ValueError as error:
            raise ValueError(f"attention={attention!r} in stage {number + 1}: {error}") from error
    pool = mechanism.global_pool or config.global_pool
    return dataclasses.replace(config, stages=tuple(stages), global_pool=pool)
