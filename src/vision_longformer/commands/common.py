"""What the commands share."""

from __future__ import annotations

import sys
from typing import NoReturn

import jsonargparse

Arguments = jsonargparse.Namespace


class UsageError(Exception):
    """The command cannot be carried out as it was typed."""


class Parser(jsonargparse.ArgumentParser):
    """A parser that raises `UsageError` with one sentence."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a `UsageError`."""
        sentence = " ".join((message or str(ex)).split())
        command = self.prog.replace(" [options]", "")
        for name in command.split()[1:]:
            sentence = sentence.replace(f"{name}.", "")
        raise UsageError(f"{sentence.rstrip('.')} (see {command} --help)")


def tell(message: str) -> None:
    """Print a sentence for the person at the terminal."""
    print(f"vil: {message}", file=sys.stderr)
