"""The command line, `vil`. Each command is a module of `commands` that adds its arguments and runs.

Exit codes: 0 all went well, 1 something failed on the way, 2 the command was not understood or cannot be carried out as
it was typed, 75 stopped by SIGTERM and saved, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Protocol

import jsonargparse

from vision_longformer.commands import (
    benchmark,
    compare,
    convert,
    encode,
    evaluate,
    export,
    models,
    plan,
    predict,
    pretrain,
    train,
)
from vision_longformer.commands.common import Arguments, Parser, StoppedError, UsageError, tell
from vision_longformer.utils.version import __version__


class Command(Protocol):
    """A module of `commands`."""

    def arguments(self) -> Parser:
        """Return the parser of the command's own arguments."""

    def run(self, arguments: Arguments) -> int:
        """Carry the command out and return the exit code."""


COMMANDS: dict[str, Command] = {
    "encode": encode,
    "models": models,
    "convert": convert,
    "export": export,
    "compare": compare,
    "benchmark": benchmark,
    "plan": plan,
    "train": train,
    "pretrain": pretrain,
    "evaluate": evaluate,
    "predict": predict,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `vil` with these arguments, by default those of the process.

    Returns:
        The exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold bytes that are no text
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _tell_warning
            code = _run(argv)
        sys.stdout.flush()  # here, where a closed pipe can be dealt with
        return code
    except BrokenPipeError:  # what reads our output, such as `head`, has seen enough
        with open(os.devnull, "w") as devnull:
            os.dup2(devnull.fileno(), sys.stdout.fileno())  # for what Python flushes at exit
        return 1


def _tell_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as a sentence, without the line of code that it comes from."""
    tell(f"warning: {message}")


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = _parser().parse_args(None if argv is None else list(argv))
        return COMMANDS[arguments.command].run(arguments[arguments.command])
    except UsageError as error:
        tell(str(error))
        return 2
    except KeyboardInterrupt:
        tell("interrupted; what was finished is kept, and running again goes on from there")
        return 130
    except StoppedError:
        tell("stopped by SIGTERM; what was finished is kept, and running again goes on from there")
        return 75
    except SystemExit as error:  # --help and --version
        return error.code if isinstance(error.code, int) else 0


def _parser() -> jsonargparse.ArgumentParser:
    parser = Parser(
        prog="vil",
        version=__version__,
        description="Encode high-resolution images of any size with the Multi-Scale Vision Longformer.",
    )
    commands = parser.add_subcommands(dest="command", title="commands", metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = module.arguments()
        commands.add_subcommand(name, command, help=command.description)
    return parser


if __name__ == "__main__":
    sys.exit(main())
