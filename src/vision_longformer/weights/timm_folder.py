"""timm's hub layout: a folder with `config.json` beside `model.safetensors`.

timm writes such folders too (`save_for_hf`, `push_to_hf_hub`). The weights in these say nothing of themselves: what
there is to know is in `config.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import ModelConfig
from vision_longformer.timm_interface import default_cfg
from vision_longformer.utils import strict_json
from vision_longformer.utils.words import shown
from vision_longformer.variants import CONFIGS, configure
from vision_longformer.weights.checks import READING

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
PREPROCESSING = ("mean", "std", "interpolation", "crop_pct")


def folder_config(model: VisionLongformer, description: dict[str, Any], names: list[str] | None) -> dict[str, Any]:
    """Return what `config.json` says of a model.

    The architecture is the nearest name; `model_args` hold the exact configuration.

    Args:
        model: The model.
        description: timm's.
        names: Of its classes.
    """
    same = [name for name, config in CONFIGS.items() if config.stages == model.config.stages]
    said = {
        "architecture": description.get("architecture") or (same or list(CONFIGS))[0],
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "global_pool": model.global_pool,
        "model_args": {"model_config": model.config.to_dict()},
        "pretrained_cfg": {
            key: value
            for key, value in (description | default_cfg(model.config)).items()
            if key not in ("url", "architecture", "label_names", READING)
        }
        | {key: description[key] for key in PREPROCESSING},
    }
    return said if names is None else said | {"label_names": names}


def read_folder_config(folder: Path) -> dict[str, Any]:
    """Return what `config.json` says, in the form that weight files say it of themselves.

    Returns:
        "config", as `ModelConfig.to_dict` gives it; "class_names", a list or None; "preprocessing". Its values are
        those of the file: whoever takes them checks them.

    Raises:
        ValueError: There is no such file, it describes none of our models, or is damaged.
    """
    path = folder / CONFIG_NAME
    try:
        said = strict_json.parse(path.read_bytes())
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}); it says which model the weights are for"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: is damaged: {error}") from error
    cfg = said.get("pretrained_cfg") if isinstance(said, Mapping) else None
    if not isinstance(cfg, Mapping):
        raise ValueError(f"{path}: is not in timm's form, which has a 'pretrained_cfg'")
    name = said.get("architecture")
    if name not in CONFIGS:
        raise ValueError(
            f"{path}: its architecture is {shown(name)}, which is none of this library: "
            f"timm.create_model('local-dir:{folder}', pretrained=True) may know it"
        )
    try:
        config = _config(name, said, cfg)
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: is damaged: {error}") from error
    names = said.get("label_names", cfg.get("label_names"))
    return {
        "config": config.to_dict(),
        "class_names": names if config.num_classes else None,
        "preprocessing": {key: cfg[key] for key in PREPROCESSING if key in cfg},
    }


def _config(name: str, said: Mapping[str, Any], cfg: Mapping[str, Any]) -> ModelConfig:
    """Return the configuration that timm would build."""
    options = said.get("model_args", {})
    if not isinstance(options, Mapping):
        raise ValueError(f"model_args={shown(options)}: must be an object")
    options = dict(options)
    if not {"model_config", "config"} & set(options):
        if "input_size" in cfg:
            options.setdefault("in_chans", cfg["input_size"][0])
        options.setdefault("num_classes", said.get("num_classes", cfg.get("num_classes", 1000)))
    return configure(name, **options)
