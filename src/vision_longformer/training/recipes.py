"""Recipes: YAML files of a `TrainConfig`. Some come with the package, in the folder `recipes`."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vision_longformer.training.config import TrainConfig, walk

SHIPPED = Path(__file__).parent.parent / "recipes"
# Of `vil pretrain`, where neither the recipe nor the command line says otherwise. Two processors see about a million
# views in an hour.
PRETRAINING: dict[str, Any] = {
    "task": "distillation",
    "model": {"name": "vision_longformer_nano", "drop_path_rate": 0.0},
    "input": {"size": 128, "crop_share": 1.0},
    "augmentation": {"crop_scale": [0.35, 1.0], "rand_augment": None, "color_jitter": 0.2, "mixup": 0, "cutmix": 0},
    "optimizer": {"learning_rate": 1e-3, "clip_norm": 1.0},
    "schedule": {"epochs": 30, "warmup_epochs": 1},
    "compute": {"batch_size": 128},
}


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read a recipe's values, unchecked.

    Args:
        path: A file, or the name of a recipe that comes with the package, such as "sign_digits_nano".

    Raises:
        FileNotFoundError: There is no such file or recipe.
        ValueError: It is no YAML mapping; names the line.
    """
    path = Path(path)
    if not path.is_file():
        path = _shipped(path)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except RecursionError:
        raise ValueError(f"{path}: is not YAML that can be read: it is nested too deeply") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must be a mapping of options, such as `seed: 0`")
    return values


def shipped() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def _shipped(path: Path) -> Path:
    """Return the file of a recipe of the package.

    Raises:
        FileNotFoundError: It has no such recipe; names the nearest that it has.
    """
    if str(path) in shipped():
        return SHIPPED / f"{path}.yaml"
    close = difflib.get_close_matches(path.stem, shipped(), n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; recipes of the package: {', '.join(shipped())}"
    raise FileNotFoundError(f"{path}: no such recipe{hint}")


def read_options(groups: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a recipe's values from texts of the command line, which are YAML.

    Args:
        groups: Texts in nested mappings; None where an option was not given.
        prefix: What the names begin with.

    Raises:
        ValueError: A text is no YAML.
    """
    values: dict[str, Any] = {}
    for name, text in groups.items():
        if isinstance(text, Mapping):
            if group := read_options(text, f"{prefix}{name}."):
                values[name] = group
        elif text is not None:
            values[name] = _read_text(text, f"--{prefix}{name}")
    return values


def over(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's values with `others` in their place, group by group."""
    merged = dict(values)
    for name, other in others.items():
        both = isinstance(merged.get(name), Mapping) and isinstance(other, Mapping)
        merged[name] = {**merged[name], **other} if both else other
    return merged


def build(values: Mapping[str, Any]) -> TrainConfig:
    """Build a configuration; fields that are missing take their defaults.

    Raises:
        ValueError: A field is unknown, with the nearest one that exists, or has an impossible value.
    """
    config: TrainConfig = _build(TrainConfig, values, prefix="")
    return config


def write_recipe(config: TrainConfig) -> str:
    """Return the YAML of a whole configuration."""
    text: str = yaml.safe_dump(config.to_dict(), sort_keys=False)
    return text


def _build(kind: Any, values: object, *, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{prefix.rstrip('.')}={values!r}: must be a mapping of options")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    arguments = {}
    for name, value in values.items():
        if name not in fields:
            raise ValueError(_unknown(f"{prefix}{name}"))
        default = fields[name].default
        if dataclasses.is_dataclass(default):
            arguments[name] = _build(type(default), value, prefix=f"{prefix}{name}.")
        else:
            arguments[name] = tuple(value) if isinstance(value, list) else value
    return kind(**arguments)


def _read_text(text: str, option: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{option} {text}: is not YAML: {' '.join(str(error).split())}") from error


def _unknown(path: str) -> str:
    known = [option.path for option in walk(TrainConfig())]
    groups = sorted({known_path.split(".")[0] for known_path in known})
    by_name = {known_path.rsplit(".", 1)[-1]: known_path for known_path in known}
    close = difflib.get_close_matches(path, known + groups, n=1, cutoff=0.75)
    if not close:
        names = difflib.get_close_matches(path.rsplit(".", 1)[-1], by_name, n=1, cutoff=0.6)
        close = [by_name[name] for name in names] or difflib.get_close_matches(path, known, n=1)
    return f"{path}: there is no such option" + (f"; did you mean {close[0]}?" if close else "")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML 1.1 reads 1e-3 as text; recipes mean a number."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)
