"""The published family in timm's registry; and building its models by name."""

from __future__ import annotations

import contextlib
import difflib
import functools
from collections.abc import Mapping
from typing import Any, cast

import timm
import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._input import update_model_input_size
from torch import nn

from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import ModelConfig
from vision_longformer.pretrained import backbones
from vision_longformer.timm_interface import default_cfg
from vision_longformer.variants import CONFIGS, configure
from vision_longformer.weights import describe, resize_position_tables

STRUCTURE = ("model_config", "config", "attention", "partial")  # options that say what a model is made of


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
    config = options.pop("config", None)
    if config is not None:  # timm keeps the options, and saves them as JSON
        options["model_config"] = config.to_dict() if isinstance(config, ModelConfig) else config
    return cast(nn.Module, timm.create_model(name, **options))


def _build(
    name: str, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None, **options: Any
) -> VisionLongformer:
    """Build the model `name` with timm's options."""
    config = configure(name, **options)
    with contextlib.nullcontext() if device is None else torch.device(device):
        model = VisionLongformer(config).to(dtype)
    update_model_input_size(model, model.config.image_size)  # timm saves it with the weights
    return model


def _register(name: str) -> None:
    def entry(pretrained: bool = False, **options: Any) -> nn.Module:
        asked = {option: options.pop(option) for option in STRUCTURE if option in options}
        config = configure(name, **asked)
        stages = len(config.stages)
        if any(asked.values()):
            options["model_config"] = config.to_dict()
            # timm fills these in from the default configuration of `name` unless they are given
            for option in ("num_classes", "in_chans", "global_pool"):
                options.setdefault(option, getattr(config, option))
        from_package = pretrained and not any(
            isinstance(options.get(option), Mapping) for option in ("pretrained_cfg", "pretrained_cfg_overlay")
        )
        if from_package:
            require_weights(name)
        model: nn.Module = build_model_with_cfg(
            functools.partial(_build, name),
            name,
            pretrained,
            pretrained_filter_fn=resize_position_tables,
            feature_cfg={
                "out_indices": tuple(range(stages)),
                "feature_cls": "getter",
                "output_fmt": "NCHW",
            },
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
