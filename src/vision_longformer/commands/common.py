"""What the commands share."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import jsonargparse

from vision_longformer.utils.atomic_files import check_writable

Arguments = jsonargparse.Namespace
STOPPED = 75  # exit codes; this one as sysexits.h has it for "try again later"
INTERRUPTED = 130
MOMENT = 0.01  # seconds


class UsageError(Exception):
    """The command cannot be carried out as it was typed."""


def check_output(option: str, folder: Path) -> None:
    """Raise `UsageError`, before work begins, if nothing can be written into a folder that an option names."""
    try:
        check_writable(folder)
    except OSError as error:
        raise UsageError(f"{option} {error}") from error


def check_output_file(option: str, file: str | None) -> None:
    """Do what `check_output` does for a file, if there is to be one."""
    if file is None:
        return
    if Path(file).is_dir():
        raise UsageError(f"{option} {file}: is a folder, not a file")
    check_output(option, Path(file).parent)


class _Help(jsonargparse.DefaultHelpFormatter):
    """Help that says defaults once, where there are any: sentences and their placeholders say the types."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if not action.option_strings or action.nargs == 0 or action.default in (None, argparse.SUPPRESS):
            return text
        return text if "default" in text else f"{text} (default: %(default)s)"


class Parser(jsonargparse.ArgumentParser):
    """A parser that raises `UsageError` with one sentence.

    Attributes:
        has_result: Whether the command has one that JSON can say.
    """

    has_result = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, allow_abbrev=False, formatter_class=_Help, **options)
        self._negative_number_matcher = re.compile(r"-\.?\d")  # a value, such as -4GB, and no option

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
        if missing := re.search(r"arguments are required: (.*)", sentence):
            self._refuse_missing(missing[1].split(", "))
        unknown = re.search(r"[Uu]nrecognized arguments: --([\w.]+)", sentence)
        known = [option for action in self._actions for option in action.option_strings]
        close = difflib.get_close_matches(f"--{unknown[1]}", known, n=1) if unknown else []
        sentence += f"; did you mean {close[0]}?" if close else ""
        command = self.prog.replace(" [options]", "")
        for name in command.split()[1:]:
            sentence = sentence.replace(f"{name}.", "")
        raise UsageError(f"{sentence.rstrip('.')} (see {command} --help)")

    def _refuse_missing(self, names: list[str]) -> NoReturn:
        """Raise a `UsageError` for arguments that a command needs; names begin with that of the command."""
        parser: Any = self
        command, words = self.prog.replace(" [options]", ""), []
        for name in names:
            own = name.split(".")
            if len(own) > 1 and isinstance(choices := getattr(self._subcommands_action, "choices", None), dict):
                parser, command = choices.get(own[0], self), f"{self.prog.replace(' [options]', '')} {own[0]}"
            dest = own[-1]
            (action,) = [found for found in parser._actions if found.dest == dest] or [None]
            placeholder = getattr(action, "metavar", None) or dest.upper()
            words.append(" ".join([*getattr(action, "option_strings", [])[:1], str(placeholder)]))
        what = " and ".join(words)
        raise UsageError(f"{what} {'are' if len(words) > 1 else 'is'} missing (see {command} --help)")


class StoppedError(BaseException):
    """SIGTERM has come. Like a `KeyboardInterrupt`, it is no error that work could go on after."""


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Raise `StoppedError` where SIGTERM comes inside the `with` block, once. Only the main thread can.

    Python drops what is raised in a `__del__` and in other callbacks: then it is raised again a moment later.
    """
    stopping = _Stopping()
    try:
        yield
        if stopping.is_dropped:
            raise StoppedError
    finally:
        stopping.is_over = True
        stopping.end()


class _Stopping:
    """Raises `StoppedError` on SIGTERM, and again where that was dropped, until `is_over`.

    Attributes:
        is_dropped: Whether it was raised and dropped, and is to be raised again.
        is_over: Whether nothing is to be raised any more: what was changed is being put back.
    """

    def __init__(self) -> None:
        self.is_dropped = self.is_over = False
        self._is_seeing, self._is_late, self._ended = False, False, threading.Event()
        self._again = threading.Thread(target=self._signal_again, daemon=True)
        self._before, self._others = signal.signal(signal.SIGTERM, self._stop), sys.unraisablehook
        sys.unraisablehook = self._see_dropped

    def end(self) -> None:
        """Put back what was changed; a signal that comes meanwhile is one for whoever was told of them before."""
        self._ended.set()
        if self._again.ident is not None:
            self._again.join()
        sys.unraisablehook = self._others
        signal.signal(signal.SIGTERM, self._before)
        if self._is_late and self._again.ident is None:
            signal.raise_signal(signal.SIGTERM)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_seeing or self.is_over:  # what is raised in a hook is dropped too
            self._is_late = True
            return
        self.is_dropped = False
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # while what was begun is put in order
        raise StoppedError

    def _see_dropped(self, dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, StoppedError):
            self._others(dropped)
            return
        self._is_seeing = self.is_dropped = True
        signal.signal(signal.SIGTERM, self._stop)
        if self._again.ident is None:
            self._again.start()
        self._is_seeing = False

    def _signal_again(self) -> None:
        """Signal until the end: the main thread may be in a callback whenever one comes."""
        while not self._ended.wait(MOMENT):
            signal.raise_signal(signal.SIGTERM)
