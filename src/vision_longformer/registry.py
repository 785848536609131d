"""The published family in timm's registry; and building its models by name."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
from collections.abc import Mapping
from typing import Any, cast

import timm
import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._input import update_model_input_size
from torch import nn

from vision_longformer.attention.ablations import with_attention
from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import Attention, ModelConfig
from vision_longformer.pretrained import backbones
from vision_longformer.timm_interface import default_cfg
from vision_longformer.variants import CONFIGS
from vision_longformer.weights import describe, resize_position_tables


def create_model(name: str, **options: Any) -> nn.Module:
    """Build a model by name, untrained unless told otherwise.

    Args:
        name: One of `list_models()`.
        **options: `num_classes`, `in_chans`, `img_size` (that position tables are sized for), `global_pool`,
            `drop_rate`, `drop_path_rate`, `device`, `dtype`, `config` (a `ModelConfig`, or its dictionary, in place
            of the variant's), `attention` and `partial` (another mechanism, see `ablations.with_attention`) and all
            that `timm.create_model` takes, such as `features_only` and `checkpoint_path`.

    Returns:
        A `VisionLongformer`, or timm's wrapper of one with `features_only=True`.

    Raises:
        ValueError: There is no such model, or an option has an impossible value.
        TypeError: There is no such option.
    """
    if name not in CONFIGS:
        full = f"vision_longformer_{name}"
        close = [full] if full in CONFIGS else difflib.get_close_matches(name, CONFIGS, n=1)
        close = close or difflib.get_close_matches(full, CONFIGS, n=1, cutoff=0.8)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"there is no model {name!r}{hint} (vision_longformer.list_models() names them all)")
    if isinstance(options.get("config"), ModelConfig):
        options["config"] = options["config"].to_dict()  # timm keeps the options, and saves them as JSON
    return cast(nn.Module, timm.create_model(name, **options))


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
        from_package = pretrained and not any(
            isinstance(options.get(option), Mapping) for option in ("pretrained_cfg", "pretrained_cfg_overlay")
        )
        if from_package:
            require_weights(name)
        stages = len(_as_config(options.get("config") or CONFIGS[name]).stages)
        model: nn.Module = build_model_with_cfg(
            functools.partial(_configured, name),
            name,
            pretrained,
            pretrained_filter_fn=resize_position_tables,
            feature_cfg={"out_indices": tuple(range(stages)), "feature_cls": "getter", "output_fmt": "NCHW"},
            **options,
        )
        if from_package and isinstance(model, VisionLongformer):
            names = describe(backbones()[name].path).get("class_names")
            if names is not None and len(names) == model.num_classes:
                model.pretrained_cfg = model.default_cfg = dict(model.pretrained_cfg) | {"label_names": names}
        return model

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"Build {name} (see `vision_longformer.variants`)."
    register_model(entry)


def require_weights(name: str) -> None:
    """Make sure that a model's weights come with the package, and are whole.

    Raises:
        ValueError: There are none; names the models that have some.
        DamagedWeightsError: The file has changed.
    """
    if name not in backbones():
        having = ", ".join(backbones()) or "none has"
        raise ValueError(f"pretrained=True: {name} has no trained weights; these models have: {having}")
    backbones()[name].checked_path()


def _described(name: str, config: ModelConfig) -> dict[str, Any]:
    """Return timm's description of a model, with its weights if it has any."""
    description = default_cfg(config)
    if name not in backbones():
        return description
    entry = backbones()[name]
    about = describe(entry.path).get("preprocessing", {})
    return description | {"file": str(entry.path), "license": "mit", "description": entry.summary, **about}


def _tagged(name: str) -> str:
    return f"{name}.{backbones()[name].tag}" if name in backbones() else name


default_cfgs = generate_default_cfgs({_tagged(name): _described(name, config) for name, config in CONFIGS.items()})
for _name in CONFIGS:
    _register(_name)
