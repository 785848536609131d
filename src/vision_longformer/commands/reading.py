"""The options that say how images are read, which are the same for every command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vision_longformer.commands.common import Arguments
from vision_longformer.images import AS_STORED, Reading

SCALES = ("level", "mpp", "magnification")  # of which one is given
OPTIONS = (*SCALES, "channels", "value_range", "tissue")  # fields of a `Reading`, and of a recipe's `input`


def given_reading(arguments: Arguments) -> dict[str, Any]:
    """Return the options that were typed, as a recipe's `input` has them."""
    values = {name: arguments[name] for name in OPTIONS if arguments[name] is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def chosen_reading(arguments: Arguments, *, trained: Reading = AS_STORED, tell: Callable[[str], None]) -> Reading:
    """Return how images are to be read: as was typed, else as the weights were trained.

    Args:
        arguments: Of the command.
        trained: How images were read in training.
        tell: Called with a sentence where weights decide, or would have.

    Raises:
        ValueError: A number is out of range.
    """
    typed, kept = given_reading(arguments), []
    if any(name in typed for name in SCALES):  # one of them takes the place of another
        typed = {"level": 0, "mpp": None, "magnification": None, **typed}
    for name in OPTIONS:
        before = getattr(trained, name)
        if name in typed and before != getattr(AS_STORED, name) and before != typed[name]:
            tell(f"{_said(name, typed[name])} in place of training's {_said(name, before)}")
        elif name not in typed and before != getattr(AS_STORED, name):
            kept.append(_said(name, before))
    if kept:
        tell(f"images are read as in training: {' '.join(kept)}")
    return Reading(**{name: typed.get(name, getattr(trained, name)) for name in OPTIONS})


def check_max_side(max_side: int, reading: Reading) -> None:
    """Raise `ValueError` if images cannot be shrunk so, or not if they are read so."""
    if max_side < 1:
        raise ValueError(f"--max-side {max_side}: must be at least 1 pixel")
    if reading != AS_STORED:
        raise ValueError("--max-side goes with no option that says how images are read, such as --level")


def _said(name: str, value: Any) -> str:
    """Return an option as it is typed."""
    if value is None:
        return f"no --{name}"
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    numbers = value if isinstance(value, tuple) else (value,)
    return f"--{name.replace('_', '-')} " + " ".join(f"{number:g}" for number in numbers)
