"""What `vil encode`, `vil compare` and `vil benchmark` show of their work: a bar while it goes on, a sentence at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from vision_longformer.benchmarking.benchmark import Row as BenchmarkRow
from vision_longformer.comparison import Row
from vision_longformer.feature_files import Result


def follow(results: Iterable[Result], *, total: int, console: Console) -> list[Result]:
    """Show progress and every failure while the work goes on; return all results.

    Args:
        results: Each as it is finished.
        total: How many there will be.
        console: Shows the bar if it is a terminal, and the messages in any case.
    """
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images"),
        TextColumn("{task.fields[rate]} megapixels/s"),
        TimeRemainingColumn(),
    )
    finished: list[Result] = []
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, rate="–")
        for result in results:
            finished.append(result)
            if result.message:
                label = "failed" if result.status == "failed" else "note"
                console.print(Text(f"vil: {label}: {result.source.path}: {result.message}"), soft_wrap=True)
            seconds = sum(done.seconds for done in finished)
            rate = f"{sum(done.megapixels for done in finished) / seconds:.2f}" if seconds else "–"
            progress.update(task, advance=1, rate=rate)
    return finished


def summary(results: Sequence[Result]) -> str:
    """Say how many images were encoded, how fast, how many had been before, and how many failed."""
    count = {status: [r for r in results if r.status == status] for status in ("encoded", "skipped", "failed")}
    encoded = count["encoded"]
    parts = [f"{len(encoded)} encoded"]
    if encoded:
        seconds = sum(result.seconds for result in encoded)
        megapixels = sum(result.megapixels for result in encoded)
        parts[0] += f" ({megapixels:.1f} megapixels in {seconds:.1f} s, {megapixels / seconds:.2f} a second)"
    parts += [f"{len(count['skipped'])} done before"] if count["skipped"] else []
    parts += [f"{len(count['failed'])} failed"] if count["failed"] else []
    return ", ".join(parts) + "."


def follow_comparison(rows: Iterable[Row], *, planned: Sequence[tuple[str, int]], console: Console) -> list[Row]:
    """Show which mechanism is measured, at which size, and how many are left; return all rows.

    Args:
        rows: Each as it is measured.
        planned: (mechanism, side) of each, in their order.
        console: Shows a bar if it is a terminal, else a line for each.
    """
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    finished: list[Row] = []
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(planned))
        rows = iter(rows)
        for number, (attention, side) in enumerate(planned):
            label = f"{attention} at {side}, {len(planned) - number - 1} left"
            progress.update(task, completed=number, description=label)
            if not console.is_terminal:
                console.print(Text(f"vil: {number + 1}/{len(planned)}: {label}"), soft_wrap=True)
            finished.append(next(rows))
            if finished[-1].note:
                console.print(Text(f"vil: note: {attention} at {side}: {finished[-1].note}"), soft_wrap=True)
    return finished


def follow_benchmark(
    begin: Callable[[Callable[[str], None]], Iterable[BenchmarkRow]], *, total: int, console: Console
) -> list[BenchmarkRow]:
    """Show what is measured and how much is left; return all rows.

    Args:
        begin: Takes what it is to call with a few words before each piece of work, and gives the rows.
        total: Pieces of work, some of which may be left out.
        console: Shows a bar if it is a terminal, else a line for each.
    """
    columns = (BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)

        def on_step(words: str) -> None:
            progress.update(task, advance=1, description=words)
            if not console.is_terminal:
                console.print(Text(f"vil: {words}"), soft_wrap=True)

        return list(begin(on_step))
