"""What can be typed: the options of every command, in the order in which `vil --help` lists the commands.

Nothing is imported here that takes long: help, and the answer to a misspelt option, need no more than this.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from vision_longformer.commands.common import Parser
from vision_longformer.commands.options.images import (
    clusters_parser,
    demo_parser,
    doctor_parser,
    encode_parser,
    explore_parser,
    plan_parser,
    search_parser,
    status_parser,
)
from vision_longformer.commands.options.learning import (
    evaluate_parser,
    predict_parser,
    pretrain_parser,
    probe_parser,
    train_parser,
)
from vision_longformer.commands.options.models import (
    benchmark_parser,
    compare_parser,
    completion_parser,
    convert_parser,
    export_parser,
    models_parser,
)
from vision_longformer.commands.options.shared import add_saying
from vision_longformer.utils.version import __version__

PARSERS: dict[str, Callable[[], Parser]] = {
    "encode": encode_parser,
    "status": status_parser,
    "explore": explore_parser,
    "demo": demo_parser,
    "search": search_parser,
    "clusters": clusters_parser,
    "models": models_parser,
    "convert": convert_parser,
    "export": export_parser,
    "compare": compare_parser,
    "benchmark": benchmark_parser,
    "plan": plan_parser,
    "train": train_parser,
    "pretrain": pretrain_parser,
    "evaluate": evaluate_parser,
    "predict": predict_parser,
    "probe": probe_parser,
    "doctor": doctor_parser,
    "completion": completion_parser,
}


def _complete(parser: Callable[[], Parser]) -> Parser:
    """Return the parser of a command with the options that all have."""
    made = parser()
    add_saying(made)
    return made


COMMANDS: dict[str, Callable[[], Parser]] = {
    name: functools.partial(_complete, parser) for name, parser in PARSERS.items()
}


def vil_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="vil",
        version=__version__,
        description="Encode high-resolution images of any size with the Multi-Scale Vision Longformer.",
    )
    commands = parser.add_subcommands(dest="command", title="commands", metavar="COMMAND")
    for name, options in COMMANDS.items():
        command = options()
        commands.add_subcommand(name, command, help=command.description)
    return parser
