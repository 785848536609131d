"""What a command prints, and where: the one place that knows of --quiet, --verbose and --json.

Results go to standard output: a table for a person, or JSON. Remarks, warnings, failures and progress go to standard
error, through the standard library's logging: a command remarks with INFO, and fails with ERROR; what other modules log
is shown from WARNING on. Bars are drawn on terminals only, never into a file or a pipe. rich leaves out colours where
NO_COLOR is set.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.words import visible

if TYPE_CHECKING:  # rich takes longer to import than help to print
    from rich.console import Console, RenderableType
    from rich.progress import Progress, ProgressColumn

PACKAGE = "vision_longformer"
logger = logging.getLogger(__name__)


class _ToStandardError(logging.Handler):
    """Prints a record as a sentence, to what standard error is at that time."""

    def emit(self, record: logging.LogRecord) -> None:
        words = ["vil:"]
        if record.name == __name__ and record.levelno == logging.WARNING:
            words.append("warning:")
        elif record.name != __name__ and record.levelno < logging.WARNING:
            words.append(f"{record.name.removeprefix(f'{PACKAGE}.')}:")
        print(*words, visible(record.getMessage(), keep="\n"), file=sys.stderr)


@contextlib.contextmanager
def speaking(*, quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """Show what is logged inside the `with` block.

    Args:
        quiet: Failures only.
        verbose: All that any module of the package says.
    """
    package = logging.getLogger(PACKAGE)
    before = package.level, logger.level
    handler = _ToStandardError()
    package.addHandler(handler)
    package.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING)
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(before[0])
        logger.setLevel(before[1])


def tell(message: str) -> None:
    """Print a remark for the person at the terminal; nothing with --quiet."""
    logger.info("%s", message)


def warn(message: str) -> None:
    """Print a warning; nothing with --quiet."""
    logger.warning("%s", message)


def complain(message: str) -> None:
    """Print what failed."""
    logger.error("%s", message)


def remarks() -> bool:
    """Return whether more than failures is to be said."""
    return logger.isEnabledFor(logging.INFO)


def wants_json(arguments: Any) -> bool:
    """Return whether the result is to be printed as JSON, and nothing else to standard output."""
    return arguments.get("json") in (True, "-")


def give(arguments: Any, about: Any, *shown: RenderableType) -> None:
    """Print the result of a command; and write it as JSON, where --json names a file.

    Args:
        arguments: Of the command.
        about: The result as JSON has it.
        shown: The same for a person: lines, and what rich prints.

    Raises:
        OSError: The file cannot be written.
    """
    text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
    if wants_json(arguments):
        print(text, end="")
        return
    from rich.console import Console

    for part in shown:
        if isinstance(part, str):
            print(part)
        else:
            Console().print(part)
    if isinstance(file := arguments.get("json"), str):
        with replacing(Path(file)) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="surrogateescape")  # names that are no text


def say(arguments: Any, sentence: str) -> None:
    """Print a sentence about the result, to standard output; nothing with --quiet, or where JSON is printed there."""
    if remarks() and not wants_json(arguments):
        print(sentence, flush=True)


def error_console(*, quiet: bool = False) -> Console:
    """Return rich's console for standard error, which is a terminal only if that is one, whatever is forced.

    Args:
        quiet: Print nothing at all: for a process that leaves it to another one.
    """
    from rich.console import Console

    return Console(stderr=True, quiet=quiet, force_terminal=None if sys.stderr.isatty() else False)


def progress(*columns: ProgressColumn, console: Console) -> Progress:
    """Return rich's progress, which draws nothing unless `console` is a terminal and remarks are wanted."""
    from rich.progress import Progress

    disable = console.quiet or not console.is_terminal or not remarks()
    return Progress(*columns, console=console, transient=True, disable=disable)
