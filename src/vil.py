"""The command line, `vil`: `python -m vil` does the same, for torchrun.

It lies outside the package because importing that, which registers its models with timm, takes seconds. Help, the
version and a misspelt option are answered without; a command's module is imported once the command is to run.

Exit codes: 0 all went well, 1 something failed on the way, 2 the command was not understood or cannot be carried out as
it was typed, 75 stopped by SIGTERM and saved, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence

PACKAGE = "vision_longformer"
LIGHT = ("completion",)  # commands that need nothing of the package but its options
CONTINUED = ("encode", "train", "pretrain")  # commands that go on from what an interrupted one has finished


def script() -> int:
    """Run `vil` with the arguments of the process, which ends afterwards."""
    if PACKAGE in sys.modules:
        return main()
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package  # its modules can be imported now, its own `__init__` has not run
    loader = spec.loader
    return main(finish_import=lambda: loader.exec_module(package))


def main(argv: Sequence[str] | None = None, *, finish_import: Callable[[], None] = lambda: None) -> int:
    """Run `vil` with these arguments, by default those of the process.

    Args:
        argv: The arguments.
        finish_import: Called before a command runs.

    Returns:
        The exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold bytes that are no text
    for library in ("PIL", "rasterio", "tifffile"):  # what they say of damaged files, we say with the file's name
        logging.getLogger(library).addHandler(logging.NullHandler())
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _tell_warning
            code = _run(sys.argv[1:] if argv is None else argv, finish_import)
        sys.stdout.flush()  # here, where a closed pipe can be dealt with
        return code
    except BrokenPipeError:  # what reads our output, such as `head`, has seen enough
        with open(os.devnull, "w") as devnull:
            os.dup2(devnull.fileno(), sys.stdout.fileno())  # for what Python flushes at exit
        return 1


def _run(argv: Sequence[str], finish_import: Callable[[], None]) -> int:
    from vision_longformer.commands.common import INTERRUPTED, STOPPED, StoppedError, UsageError
    from vision_longformer.commands.options import vil_parser
    from vision_longformer.commands.terminal import complain, speaking

    chosen, how = "", contextlib.ExitStack()
    with how:
        how.enter_context(speaking())
        try:
            arguments = vil_parser().parse_args(list(argv))
            chosen, own = arguments.command, arguments[arguments.command]
            if own.quiet and own.verbose:
                raise UsageError("--quiet and --verbose: give one of them")
            how.close()
            how.enter_context(speaking(quiet=own.quiet, verbose=own.verbose))
            if chosen not in LIGHT:
                finish_import()
            module = importlib.import_module(f"{PACKAGE}.commands.{chosen}")
            code: int = module.run(own)
            return code
        except UsageError as error:
            complain(str(error))
            return 2
        except KeyboardInterrupt:
            goes_on = chosen in CONTINUED
            kept = "what was finished is kept, and running again goes on from there"
            complain(f"interrupted; {kept if goes_on else 'running again begins anew'}")
            return INTERRUPTED
        except StoppedError:
            complain("stopped by SIGTERM; what was finished is kept, and running again goes on from there")
            return STOPPED
        except SystemExit as error:  # --help and --version
            return error.code if isinstance(error.code, int) else 0


def _tell_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as a sentence, without the line of code that it comes from."""
    from vision_longformer.commands.terminal import warn

    warn(str(message))


if __name__ == "__main__":
    sys.exit(script())
