"""What `vil benchmark` and `vil compare` share."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.text import Text

from vision_longformer.benchmarking.benchmark import Plan, Row, benchmark
from vision_longformer.benchmarking.machine import describe_machine
from vision_longformer.commands.common import INTERRUPTED, Arguments, UsageError
from vision_longformer.commands.terminal import complain, error_console, give, progress, remarks, say, tell
from vision_longformer.reports.measured import Report
from vision_longformer.utils.atomic_files import check_writable
from vision_longformer.utils.system_memory import default_bound, parse_bytes

# Takes the rows; and the machine, the date and the command by name. Writes all files; returns the page and its report.
Finish = Callable[[Plan, Sequence[Row], dict[str, Any]], tuple[Path, Report]]


def measure(command: str, arguments: Arguments, plan_of: Callable[..., Plan], finish: Finish) -> int:
    """Measure, show and write; return the exit code.

    Args:
        command: Its name.
        arguments: Of the command.
        plan_of: Takes the options that all measuring has, by the names of `Plan`'s fields.
        finish: See `Finish`.

    Raises:
        UsageError: An option is impossible.
    """
    output = Path(arguments.output)
    try:
        plan = plan_of(**_bounds(arguments))
        check_writable(output)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    try:
        rows = _follow(plan, console=error_console())
        about = {
            "machine": describe_machine(plan.threads),
            "date": datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
            "command": _command_line(command, arguments),
        }
        page, report = finish(plan, rows, about)
        give(arguments, report.values, report.for_terminal())
    except KeyboardInterrupt:
        tell("interrupted; what was measured is lost")
        return INTERRUPTED
    except OSError as error:
        complain(f"{output}: cannot be written ({error})")
        return 1
    say(arguments, f"Look at {page}.")
    return int(any(row.status == "failed" for row in rows))


def _bounds(arguments: Arguments) -> dict[str, Any]:
    if not arguments.time_limit > 0:
        raise ValueError(f"--time-limit {arguments.time_limit:g}: must be more than 0 seconds")
    for name in ("repeats", "threads"):
        if arguments[name] is not None and arguments[name] < 1:
            raise ValueError(f"--{name} {arguments[name]}: must be at least 1")
    try:
        memory = default_bound(torch.device("cpu")) if arguments.memory is None else parse_bytes(arguments.memory)
    except ValueError as error:
        raise ValueError(f"--memory {error}") from error
    return {"memory": memory, **{name: arguments[name] for name in ("repeats", "threads", "time_limit")}}


def _command_line(command: str, arguments: Arguments) -> str:
    """Return a command that measures the same, with every option written out."""
    words = ["vil", command]
    for option, value in vars(arguments).items():
        if option in ("quiet", "verbose"):
            continue
        name = f"--{option.replace('_', '-')}"
        if isinstance(value, bool):
            words += [name] if value else []
        elif value is not None and value != []:
            words += [name, *(map(str, value) if isinstance(value, list) else [str(value)])]
    return shlex.join(words)


def _follow(plan: Plan, *, console: Console) -> list[Row]:
    """Measure, and show what is measured and how much is left: a bar on a terminal, else a line for each piece."""
    columns = (BarColumn(), TextColumn("{task.description}"))
    with progress(*columns, console=console) as bar:
        task = bar.add_task("", total=plan.steps)

        def on_step(words: str) -> None:
            bar.update(task, advance=1, description=words)
            if remarks() and not console.is_terminal:
                console.print(Text(f"vil: {words}"), soft_wrap=True)

        return list(benchmark(plan, on_step=on_step))
