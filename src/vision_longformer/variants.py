"""The published family, by name; and its entries in timm's registry.

`vision_longformer_<name>` has relative positions and windowed attention in all stages: the form for any resolution.
`_ape` has absolute positions instead; `_full` is the published form for classification, with full attention in
stages 3 and 4. At 224×224 the two forms of the 224 models give the same output with the same weights.

Widths, depths and figures: Zhang et al., ICCV 2021, https://arxiv.org/abs/2103.15358, and its released code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._input import update_model_input_size
from torch import Tensor, nn

from vision_longformer.attention.full import FullAttention, resize_step_table
from vision_longformer.attention.linformer import LinformerAttention, resize_features
from vision_longformer.attention.position import AbsolutePosition, resize_axis_table
from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import Attention, Full, ModelConfig, Position, StageConfig, Windowed
from vision_longformer.mechanisms import with_attention

PREFIX = "vision_longformer_"


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


def list_models() -> list[str]:
    """Return the names that `create_model` takes, in the order of the published table."""
    return list(CONFIGS)


def variant_of(name: str) -> Variant:
    """Return the variant that a model name is a form of."""
    return VARIANTS[name.removeprefix(PREFIX).removesuffix("_full").removesuffix("_ape")]


def create_model(name: str, **options: Any) -> nn.Module:
    """Build a model by name, untrained unless told otherwise.

    Args:
        name: One of `list_models()`.
        **options: `num_classes`, `in_chans`, `img_size` (that position tables are sized for), `global_pool`,
            `drop_rate`, `drop_path_rate`, `device`, `dtype`, `config` (a `ModelConfig`, or its dictionary, in place
            of the variant's), `attention` and `partial` (another mechanism, see `mechanisms.with_attention`) and all
            that `timm.create_model` takes, such as `features_only` and `checkpoint_path`.

    Returns:
        A `VisionLongformer`, or timm's wrapper of one with `features_only=True`.

    Raises:
        ValueError: There is no such model, or an option has an impossible value.
        TypeError: There is no such option.
    """
    if name not in CONFIGS:
        close = difflib.get_close_matches(name, CONFIGS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"there is no model {name!r}{hint} (vision_longformer.list_models() names them all)")
    if isinstance(options.get("config"), ModelConfig):
        options["config"] = options["config"].to_dict()  # timm keeps the options, and saves them as JSON
    return cast(nn.Module, timm.create_model(name, **options))


def default_cfg(config: ModelConfig) -> dict[str, Any]:
    """Return timm's description of a model: input, preprocessing, names of its first and last layer."""
    height, width = config.image_size
    return {
        "url": "",
        "num_classes": config.num_classes,
        "input_size": (config.in_chans, height, width),
        "pool_size": config.grid_size(len(config.stages) - 1),
        "crop_pct": 0.922 if min(height, width) >= 384 else 0.875,
        "interpolation": "bicubic",
        "fixed_input_size": False,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stages.0.patch_embed.proj",
        "classifier": "head",
        "license": "mit",
        "paper_ids": "arXiv:2103.15358",
        "paper_name": "Multi-Scale Vision Longformer: A New Vision Transformer for High-Resolution Image Encoding",
    }


def resize_position_tables(state: Mapping[str, Tensor], model: VisionLongformer) -> dict[str, Tensor]:
    """Fit the position tables of a state dict, trained at some image size, to `model`'s image size.

    timm calls this on what it loads. Entries that fit, or are no such tables, are passed on.
    """
    state = dict(state)
    for name, module in model.named_modules():
        if isinstance(module, AbsolutePosition):
            for axis in ("rows", "columns"):
                key = f"{name}.{axis}"
                if key in state and len(state[key]) != len(getattr(module, axis)):
                    state[key] = resize_axis_table(state[key], len(getattr(module, axis)))
        elif isinstance(module, FullAttention) and module.position is not None:
            key = f"{name}.position.table"
            if key in state and len(state[key]) != len(module.position.table):
                side = (math.isqrt(len(state[key])) + 1) // 2
                _require_square(key, state[key], rows=(2 * side - 1) ** 2)
                state[key] = resize_step_table(state[key], (side, side), module.grid)
        elif isinstance(module, LinformerAttention):
            num_global = module.num_global_tokens
            for table in ("key_features", "value_features"):
                key = f"{name}.{table}"
                if key in state and len(state[key]) != len(module.key_features):
                    side = math.isqrt(len(state[key]) - num_global)
                    _require_square(key, state[key], rows=num_global + side**2)
                    state[key] = resize_features(state[key], (side, side), module.grid, num_global_tokens=num_global)
    return state


def _require_square(key: str, table: Tensor, *, rows: int) -> None:
    if len(table) != rows:
        raise ValueError(
            f"{key} has {len(table)} rows, which belong to no square map: build the model with the img_size it was "
            "trained at, load it, then call set_input_size"
        )


def _configured(
    name: str,
    *,
    config: ModelConfig | Mapping[str, Any] | None = None,
    img_size: int | tuple[int, int] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **changes: Any,
) -> VisionLongformer:
    """Build the model `name` with timm's options changed; `config` replaces the variant's own."""
    base = CONFIGS[name] if config is None else _as_config(config)
    if img_size is not None:
        changes["image_size"] = img_size
    allowed = ("image_size", "num_classes", "in_chans", "global_pool", "drop_rate", "drop_path_rate")
    for option in changes:
        if option not in allowed:
            raise TypeError(f"{option}: {name} has no such option; it has config, img_size, {', '.join(allowed[1:])}")
    with contextlib.nullcontext() if device is None else torch.device(device):
        model = VisionLongformer(dataclasses.replace(base, **changes)).to(dtype)
    update_model_input_size(model, model.config.image_size)  # timm saves it with the weights
    return model


def _as_config(config: ModelConfig | Mapping[str, Any]) -> ModelConfig:
    return config if isinstance(config, ModelConfig) else ModelConfig.from_dict(config)


def _register(name: str) -> None:
    def entry(
        pretrained: bool = False, *, attention: str | Attention | None = None, partial: bool = False, **options: Any
    ) -> nn.Module:
        if attention is not None:
            base = _as_config(options.get("config") or CONFIGS[name])
            options["config"] = with_attention(base, attention, partial=partial).to_dict()
        elif partial:
            raise ValueError("partial=True: say which mechanism with attention=...")
        if options.get("config") is not None:
            config = _as_config(options["config"])
            # timm fills these in from the default configuration of `name` unless they are given
            for option in ("num_classes", "in_chans", "global_pool"):
                options.setdefault(option, getattr(config, option))
        stages = len(_as_config(options.get("config") or CONFIGS[name]).stages)
        model: nn.Module = build_model_with_cfg(
            functools.partial(_configured, name),
            name,
            pretrained,
            pretrained_filter_fn=resize_position_tables,
            feature_cfg={"out_indices": tuple(range(stages)), "feature_cls": "getter"},
            **options,
        )
        return model

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"Build {name} (see `vision_longformer.variants`)."
    register_model(entry)


default_cfgs = generate_default_cfgs({name: default_cfg(config) for name, config in CONFIGS.items()})
for _name in CONFIGS:
    _register(_name)
