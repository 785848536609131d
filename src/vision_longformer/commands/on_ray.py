"""`--engine ray`: what its options mean, for every command that has it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from vision_longformer.commands.common import Arguments, UsageError
from vision_longformer.engines.ray_data import MISSING, RayOptions
from vision_longformer.utils.remote import is_url

PATHS = ("output", "checkpoint", "work_folder")
# For a cluster that is started here: no statistics are sent, and what Ray says to its developers is not said.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


def uses_ray(arguments: Arguments) -> bool:
    """Tell whether the images go to Ray.

    Raises:
        UsageError: Options for Ray are given without it.
    """
    if arguments.engine == "ray":
        return True
    for option in ("address", "actors", "actor_gpus"):
        if arguments[option] is not None:
            raise UsageError(f"--{option.replace('_', '-')}: goes with --engine ray")
    return False


def ray_options(arguments: Arguments) -> RayOptions:
    """Return where the work is to be done.

    Raises:
        UsageError: A number is out of range, or Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError(f"--engine ray: {MISSING}")
    address = arguments.address or os.environ.get("RAY_ADDRESS") or None
    if address is None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
    gpus = 0.0 if arguments.device == "cpu" else arguments.actor_gpus
    try:
        return RayOptions(address, arguments.actors, arguments.actor_cpus, gpus)
    except ValueError as error:
        raise UsageError(f"--actor-{error}" if str(error)[:4] in ("cpus", "gpus") else f"--{error}") from error


def for_actors(arguments: Arguments) -> Arguments:
    """Return the options as an actor needs them, which is in a folder of its own: paths are whole."""
    changed = arguments.clone()
    for name in PATHS:
        text = getattr(arguments, name, None)
        if text is not None and not is_url(text) and (name != "checkpoint" or Path(text).exists()):
            changed[name] = os.path.abspath(text)
    return changed
