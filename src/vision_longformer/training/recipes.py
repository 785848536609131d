"""Recipes: YAML files of a `TrainConfig`, and the command line's options that override them."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vision_longformer.training.config import TrainConfig, walk


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read a recipe's values, unchecked.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no YAML mapping; names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such recipe")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must be a mapping of options, such as `seed: 0`")
    return values


def override(values: Mapping[str, Any], options: Sequence[str]) -> dict[str, Any]:
    """Return a recipe's values with command line options applied.

    Args:
        values: Nested mappings.
        options: "--schedule.epochs", "20", or "--schedule.epochs=20", in any number. Values are YAML.

    Raises:
        ValueError: An option is unknown, with the nearest one that exists, or has no value.
    """
    result = _copied(values)
    remaining = list(options)
    while remaining:
        option = remaining.pop(0)
        if not option.startswith("--"):
            raise ValueError(f"{option!r}: expected an option such as --schedule.epochs")
        path, equals, text = option[2:].partition("=")
        if not equals:
            if not remaining or remaining[0].startswith("--"):
                raise ValueError(f"--{path}: needs a value")
            text = remaining.pop(0)
        _check_path(path)
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            raise ValueError(f"--{path} {text}: is not YAML: {' '.join(str(error).split())}") from error
        *groups, name = path.split(".")
        place = result
        for group in groups:
            if not isinstance(place.setdefault(group, {}), dict):
                raise ValueError(f"{group}: must be a mapping of options")
            place = place[group]
        place[name] = value
    return result


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


def _check_path(path: str) -> None:
    known = {option.path for option in walk(TrainConfig())}
    inside_mapping = path.startswith(("model.options.", "dense.head."))
    if path not in known and not inside_mapping:
        raise ValueError(_unknown(path))


def _unknown(path: str) -> str:
    known = [option.path for option in walk(TrainConfig())]
    groups = sorted({known_path.split(".")[0] for known_path in known})
    by_name = {known_path.rsplit(".", 1)[-1]: known_path for known_path in known}
    close = difflib.get_close_matches(path, known + groups, n=1, cutoff=0.75)
    if not close:
        names = difflib.get_close_matches(path.rsplit(".", 1)[-1], by_name, n=1, cutoff=0.6)
        close = [by_name[name] for name in names] or difflib.get_close_matches(path, known, n=1)
    return f"{path}: there is no such option" + (f"; did you mean {close[0]}?" if close else "")


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in values.items()}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML 1.1 reads 1e-3 as text; recipes mean a number."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)
