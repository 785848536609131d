"""What the commands share."""

from __future__ import annotations

import contextlib
import difflib
import re
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

import jsonargparse

Arguments = jsonargparse.Namespace
STOPPED = 75  # exit codes; this one as sysexits.h has it for "try again later"
INTERRUPTED = 130
MOMENT = 0.01  # seconds


class UsageError(Exception):
    """The command cannot be carried out as it was typed."""


class Parser(jsonargparse.ArgumentParser):
    """A parser that raises `UsageError` with one sentence."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, allow_abbrev=False, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a `UsageError`."""
        sentence = " ".join((message or str(ex)).split())
        if nested := re.search(r'key "([\w.]+)": .*NestedArg\(key=\'([\w.]+)\', val=\'(.*)\'\)', sentence):
            option, key, value = nested.groups()
            sentence = f"--{option}.{key}: write it as --{option} '{{{key}: {value}}}', which replaces all of {option}"
        if wrong := re.search(
            r'key "(\w+)"(?: element \d+)?: .*Expected a <class \'(int|float)\'>.*(?:value|Given value): (.*)', sentence
        ):
            key, kind, value = wrong.groups()
            wanted = "a whole number" if kind == "int" else "a number"
            sentence = f"--{key.replace('_', '-')} {value}: must be {wanted}"
        if "arguments are required" in sentence:
            sentence = re.sub(r"(?<= )\w+\.(?=\w)", "", sentence)  # the name of the command
        unknown = re.search(r"[Uu]nrecognized arguments: --([\w.]+)", sentence)
        known = [option for action in self._actions for option in action.option_strings]
        close = difflib.get_close_matches(f"--{unknown[1]}", known, n=1) if unknown else []
        sentence += f"; did you mean {close[0]}?" if close else ""
        command = self.prog.replace(" [options]", "")
        for name in command.split()[1:]:
            sentence = sentence.replace(f"{name}.", "")
        raise UsageError(f"{sentence.rstrip('.')} (see {command} --help)")


class StoppedError(BaseException):
    """SIGTERM has come. Like a `KeyboardInterrupt`, it is no error that work could go on after."""


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Raise `StoppedError` where SIGTERM comes inside the `with` block, once. Only the main thread can.

    Python drops what is raised in a `__del__` and in other callbacks: then it is raised again a moment later.
    """
    again: list[threading.Timer] = []

    def stop(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # while what was begun is put in order
        while again:
            again.pop().cancel()
        raise StoppedError

    def see_dropped(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, StoppedError):
            others(dropped)
            return
        signal.signal(signal.SIGTERM, stop)
        again.append(threading.Timer(MOMENT, signal.raise_signal, [signal.SIGTERM]))
        again[-1].start()

    before, others = signal.signal(signal.SIGTERM, stop), sys.unraisablehook
    sys.unraisablehook = see_dropped
    try:
        yield
        if again:
            raise StoppedError
    finally:
        for timer in again:
            timer.cancel()
        sys.unraisablehook = others
        signal.signal(signal.SIGTERM, before)


def tell(message: str) -> None:
    """Print a sentence for the person at the terminal."""
    print(f"vil: {message}", file=sys.stderr)
