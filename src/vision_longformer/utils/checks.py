"""Checks of configurations, whose errors name the field, its value and the rule."""

from __future__ import annotations

from typing import Any, get_args

from vision_longformer.utils.words import shown

MAX_NUMBER = 2**20  # of whatever has no bound of its own


def impossible(field: str, value: object, rule: str) -> ValueError:
    """Return the error of a field whose value is against a rule."""
    return ValueError(f"{field}={shown(value)}: {rule}")


def is_number(value: object) -> bool:
    """Tell whether a value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def require_integer(field: str, value: Any, *, minimum: int, maximum: int = MAX_NUMBER) -> None:
    """Raise `impossible` unless a value is an integer within bounds."""
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise impossible(field, value, f"must be an integer of at least {minimum}")
    if value > maximum:
        raise impossible(field, value, f"must be at most {maximum}")


def require_integers(config: object, *fields: str, minimum: int = 1, maximum: int = MAX_NUMBER) -> None:
    """Raise `impossible` unless fields are integers within bounds."""
    for field in fields:
        require_integer(field, getattr(config, field), minimum=minimum, maximum=maximum)


def require_booleans(config: object, *fields: str) -> None:
    """Raise `impossible` unless fields are True or False."""
    for field in fields:
        if not isinstance(getattr(config, field), bool):
            raise impossible(field, getattr(config, field), "must be True or False")


def require_choice(config: object, field: str, choices: Any) -> None:
    """Raise `impossible` unless a field is one of the values of a `Literal`."""
    value, allowed = getattr(config, field), get_args(choices)
    if value not in allowed:
        raise impossible(field, value, f"must be one of {', '.join(map(repr, allowed))}")
