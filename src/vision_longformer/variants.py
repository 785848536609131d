"""The published family, by name.

`vision_longformer_<name>` has relative positions and windowed attention in all stages: the form for any resolution.
`_ape` has absolute positions instead; `_full` is the published form for classification, with full attention in
stages 3 and 4. At 224×224 the two forms of the 224 models give the same output with the same weights.

Widths, depths and figures: Zhang et al., ICCV 2021, https://arxiv.org/abs/2103.15358, and its released code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from vision_longformer.attention.ablations import with_attention
from vision_longformer.config import Attention, Full, ModelConfig, Position, StageConfig, Windowed
from vision_longformer.pretrained import backbones

PREFIX = "vision_longformer_"
CHANGES = ("num_classes", "in_chans", "global_pool", "drop_rate", "drop_path_rate")  # that timm has options for


@dataclass(frozen=True)
class Published:
    """Published figures of a variant.

    Attributes:
        parameters: Of the form with absolute positions.
        multiply_adds: At `image_size`, with windows of 7 tokens.
        image_size: Side in pixels that the figures are for.
        top1_absolute: ImageNet-1K top-1 in percent with absolute positions, None if not published.
        top1_relative: The same with relative positions.
    """

    parameters: float
    multiply_adds: float
    image_size: int
    top1_absolute: float | None
    top1_relative: float | None


@dataclass(frozen=True)
class Variant:
    """Four stages by number: blocks, channels, heads and window."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    heads: tuple[int, ...]
    windows: tuple[int, ...] = (7, 7, 7, 7)
    image_size: int = 224
    published: Published | None = None

    def config(self, *, position: Position = "relative", full: bool = False) -> ModelConfig:
        """Return the model's configuration; with `full`, stages 3 and 4 have full attention."""
        stages = tuple(
            StageConfig(
                depth=depth,
                width=width,
                num_heads=heads,
                patch_size=4 if number == 1 else 2,
                num_global_tokens=0 if number == 4 else 1,
                position=position,
                attention=Full() if full and number >= 3 else Windowed(window_size=window),
            )
            for number, (depth, width, heads, window) in enumerate(
                zip(self.depths, self.widths, self.heads, self.windows, strict=True), start=1
            )
        )
        return ModelConfig(stages, image_size=(self.image_size, self.image_size))


VARIANTS = {
    # Not published: for small data and quick tests.
    "nano": Variant((1, 1, 4, 1), (32, 64, 128, 256), (1, 2, 4, 8)),
    "tiny": Variant(
        (1, 1, 9, 1), (48, 96, 192, 384), (1, 3, 3, 6), published=Published(6.7e6, 1.43e9, 224, 76.3, 76.65)
    ),
    "small": Variant(
        (1, 2, 8, 1), (96, 192, 384, 768), (3, 3, 6, 12), published=Published(24.6e6, 5.12e9, 224, 82.0, 82.39)
    ),
    "medium_deep": Variant(
        (1, 4, 16, 1), (96, 192, 384, 768), (3, 3, 6, 12), published=Published(39.7e6, 9.1e9, 224, 83.3, 83.52)
    ),
    "medium_wide": Variant(
        (1, 2, 8, 1), (192, 384, 512, 768), (3, 6, 8, 12), published=Published(39.8e6, 11.3e9, 224, 82.9, None)
    ),
    # Pretrained on ImageNet-22K and fine-tuned at 384, with the windows of those checkpoints.
    "base_deep": Variant(
        (1, 8, 24, 1),
        (96, 192, 384, 768),
        (3, 3, 6, 12),
        windows=(6, 8, 7, 7),
        image_size=384,
        published=Published(55.7e6, 45.3e9, 384, 86.0, 86.11),
    ),
    "base_wide": Variant(
        (1, 2, 8, 1),
        (192, 384, 768, 1024),
        (3, 6, 12, 16),
        windows=(8, 8, 7, 7),
        image_size=384,
        published=Published(79.0e6, 55.8e9, 384, 86.2, None),
    ),
    "swin_tiny": Variant(
        (2, 2, 6, 2), (96, 192, 384, 768), (3, 6, 12, 24), published=Published(28e6, 5.33e9, 224, None, 82.71)
    ),
    "swin_small": Variant(
        (2, 2, 18, 2), (96, 192, 384, 768), (3, 6, 12, 24), published=Published(50e6, 9.85e9, 224, None, 83.7)
    ),
}

CONFIGS: dict[str, ModelConfig] = {
    f"{PREFIX}{name}{position_suffix}{full_suffix}": variant.config(position=position, full=full)
    for name, variant in VARIANTS.items()
    for position_suffix, position in cast(dict[str, Position], {"": "relative", "_ape": "absolute"}).items()
    for full_suffix, full in {"": False, "_full": True}.items()
}


def list_models(*, pretrained: bool = False) -> list[str]:
    """Return the names that `create_model` takes, in the order of the published table.

    Args:
        pretrained: Only those whose weights come with the package.
    """
    return [name for name in CONFIGS if name in backbones() or not pretrained]


def variant_of(name: str) -> Variant:
    """Return the variant that a model name is a form of."""
    return VARIANTS[name.removeprefix(PREFIX).removesuffix("_full").removesuffix("_ape")]


def configure(
    name: str,
    *,
    model_config: ModelConfig | Mapping[str, Any] | None = None,
    config: ModelConfig | Mapping[str, Any] | None = None,
    attention: str | Attention | None = None,
    partial: bool = False,
    img_size: int | tuple[int, int] | None = None,
    **changes: Any,
) -> ModelConfig:
    """Return the configuration that timm's options ask for.

    Args:
        name: Of the model.
        model_config: Replaces the variant's own. Not `config`, as transformers have an argument of this name where they
            hand options on to timm.
        config: The same by the name that `create_model` has.
        attention: Another mechanism, see `ablations.with_attention`.
        partial: See there.
        img_size: In pixels, (height, width) or one side of a square.
        **changes: Fields of the configuration.

    Raises:
        TypeError: There is no such option.
        ValueError: An option has an impossible value.
    """
    chosen = config if model_config is None else model_config
    if chosen is None:
        chosen = CONFIGS[name]
    base = chosen if isinstance(chosen, ModelConfig) else ModelConfig.from_dict(chosen)
    if attention is not None:
        base = with_attention(base, attention, partial=partial)
    elif partial:
        raise ValueError("partial=True: say which mechanism with attention=...")
    for option in changes:
        if option not in CHANGES:
            raise TypeError(f"{option}: {name} has no such option; it has config, img_size, {', '.join(CHANGES)}")
    if img_size is not None:
        changes["image_size"] = img_size
    return dataclasses.replace(base, **changes)
