"""What commands show of their work: a bar while it goes on, a sentence at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from vision_longformer.commands.terminal import progress, remarks
from vision_longformer.features.results import OnBand, Result
from vision_longformer.images.find import Source
from vision_longformer.utils.words import duration, visible

LOG_SECONDS = 60.0  # between the lines of a log


@dataclass
class Tally:
    """What became of the images so far.

    Attributes:
        encoded: How many were encoded.
        skipped: How many had been before.
        failed: How many could not be.
        megapixels: Millions of pixels that were encoded.
        seconds: That took.
    """

    encoded: int = 0
    skipped: int = 0
    failed: int = 0
    megapixels: float = 0.0
    seconds: float = 0.0

    def add(self, result: Result) -> None:
        """Count a result."""
        setattr(self, result.status, getattr(self, result.status) + 1)
        if result.status == "encoded":
            self.megapixels += result.megapixels
            self.seconds += result.seconds


class Done(Protocol):
    """What became of one image."""

    @property
    def source(self) -> Source:
        """The image."""

    @property
    def status(self) -> str:
        """What was done; "failed" if nothing could be."""

    @property
    def message(self) -> str:
        """Why, or a note; "" if there is nothing to say."""

    @property
    def seconds(self) -> float:
        """That it took."""

    @property
    def megapixels(self) -> float:
        """Millions of pixels that it has, if anything was done."""


DoneResult = TypeVar("DoneResult", bound=Done)


def follow(
    begin: Callable[[OnBand], Iterable[DoneResult]],
    *,
    total: int,
    console: Console,
    so_far: Callable[[DoneResult], str] = lambda _: "",
) -> list[DoneResult]:
    """Do as `followed`, and return all results."""
    return list(followed(begin, total=total, console=console, so_far=so_far))


def followed(
    begin: Callable[[OnBand], Iterable[DoneResult]],
    *,
    total: int,
    console: Console,
    so_far: Callable[[DoneResult], str] = lambda _: "",
) -> Iterator[DoneResult]:
    """Show progress and every failure while the work goes on, and pass results on, of which none is kept.

    Args:
        begin: Begins the work, which calls what it is given after each band of a streamed image.
        total: How many results there will be.
        so_far: Returns what else is to be shown after a result.
        console: Shows a bar if it is a terminal, else a line now and then for a streamed image; and the messages in
            any case.
    """
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images"),
        TextColumn("{task.fields[rate]} megapixels/s"),
        TextColumn("{task.fields[so_far]}"),
        TextColumn("{task.fields[streamed]}"),
        TimeRemainingColumn(),
    )
    seconds = megapixels = 0.0
    with progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total, rate="–", so_far="", streamed="")

        def show(line: str, now_and_then: bool) -> None:
            bar.update(task, streamed=line)
            if now_and_then and remarks() and not console.is_terminal:
                console.print(Text(visible(f"vil: {line}")), soft_wrap=True)

        for result in begin(StreamedShare(show)):
            if result.message and (result.status == "failed" or remarks()):
                label = "failed" if result.status == "failed" else "note"
                line = visible(f"vil: {label}: {result.source.location}: {result.message}")
                console.print(Text(line), soft_wrap=True)
            seconds, megapixels = seconds + result.seconds, megapixels + result.megapixels
            rate = f"{megapixels / seconds:.2f}" if seconds else "–"
            bar.update(task, advance=1, rate=rate, so_far=so_far(result), streamed="")
            yield result


class StreamedShare:
    """Says how far a streamed image is, how fast it goes, and how much time is left.

    Args:
        show: Takes the line, and whether it is one of the few that a log should have.
        clock: In seconds.
    """

    def __init__(self, show: Callable[[str, bool], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._show, self._clock = show, clock
        self._source: Source | None = None
        self._begin = self._first = self._logged = 0.0

    def __call__(self, source: Source, share: float, pixels: int) -> None:
        """Take how much of an image's work is done, from 0 to 1, and its pixels."""
        now = self._clock()
        if source != self._source or share < self._first:  # what was done before, by an earlier run, has no speed
            self._source, self._begin, self._first, self._logged = source, now, share, now
        done, seconds = share - self._first, now - self._begin
        line = f"{source.name}: {share:.0%}"
        if done > 0 and seconds > 0:
            line += f", {done * pixels / 1e6 / seconds:.2f} megapixels/s, {duration((1 - share) * seconds / done)} left"
        often_enough = now - self._logged >= LOG_SECONDS
        self._logged = now if often_enough else self._logged
        self._show(line, often_enough)


def summary(tally: Tally) -> str:
    """Say how many images were encoded, how fast, how many had been before, and how many failed."""
    parts = [f"{tally.encoded} encoded"]
    if tally.encoded:
        rate = tally.megapixels / tally.seconds
        parts[0] += f" ({tally.megapixels:.1f} megapixels in {tally.seconds:.1f} s, {rate:.2f} megapixels/s)"
    parts += [f"{tally.skipped} done before"] if tally.skipped else []
    parts += [f"{tally.failed} failed"] if tally.failed else []
    return ", ".join(parts) + "."
