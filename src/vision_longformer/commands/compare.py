"""`vil compare`: the attention mechanisms side by side, against resolution."""

from __future__ import annotations

import datetime
import shlex
from pathlib import Path

import torch
from rich.console import Console

from vision_longformer.attention.ablations import list_mechanisms
from vision_longformer.benchmarking.comparison import Settings, compare, comparison_config
from vision_longformer.benchmarking.machine import describe_machine
from vision_longformer.commands.common import Arguments, Parser, UsageError, tell
from vision_longformer.commands.progress import follow_comparison
from vision_longformer.images.decode import MAX_SIDE
from vision_longformer.reports.comparison_page import Comparison, comparison_tables, write_comparison
from vision_longformer.utils.atomic_files import check_writable
from vision_longformer.utils.system_memory import default_bound, parse_bytes


def arguments() -> Parser:
    parser = Parser(
        description="Measure attention mechanisms side by side: time, memory, multiply-adds, parameters by resolution."
    )
    add = parser.add_argument
    add("--size", nargs="+", type=int, default=[224, 448, 896, 1792], metavar="PIXELS", help="Sides of square images.")
    add("--model", default="small", type=str, metavar="NAME", help="As in the table of `vil models`.")
    add("--attention", nargs="+", type=str, default=list_mechanisms(), metavar="NAME", help="By default all.")
    add("--output", default="compare", type=str, metavar="DIR", help="Folder for index.html, SVGs and comparison.json.")
    add("--memory", type=str | None, metavar="SIZE", help="Bound on a pass, as 8GB; 60%% of what is free by default.")
    add("--repeats", type=int, default=5, metavar="N", help="Timed passes; fewer once they took a minute.")
    add("--time-limit", type=float, default=600.0, metavar="SECONDS", help="For each mechanism at each size.")
    add("--threads", type=int | None, metavar="N", help="To compute with; PyTorch's choice by default.")
    add("--json", type=str | None, metavar="FILE", help="Write comparison.json here too.")
    return parser


def run(arguments: Arguments) -> int:
    sides, attentions = sorted(set(arguments.size)), list(dict.fromkeys(arguments.attention))
    output = Path(arguments.output)
    try:
        settings = _settings(arguments, sides, output)
        for attention in attentions:
            comparison_config(arguments.model, attention)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    rows = compare(arguments.model, attentions, sides, settings)
    planned = [(attention, side) for side in sides for attention in attentions]
    try:
        comparison = Comparison(
            model=arguments.model,
            rows=follow_comparison(rows, planned=planned, console=Console(stderr=True)),
            memory=settings.memory,
            machine=describe_machine(settings.threads),
            date=datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
            command=_command_line(arguments),
        )
        page = write_comparison(comparison, output, copy=Path(arguments.json) if arguments.json else None)
    except KeyboardInterrupt:
        tell("interrupted; what was measured is lost")
        return 130
    except OSError as error:
        tell(f"{output}: cannot be written ({error})")
        return 1
    console = Console()
    console.print(comparison_tables(comparison))
    print(f"Look at {page}.")
    return int(any(row.status == "failed" for row in comparison.rows))


def _command_line(arguments: Arguments) -> str:
    """Return a command that measures the same, with every option written out."""
    words = ["vil", "compare"]
    for option, value in vars(arguments).items():
        if value is not None:
            words += [f"--{option.replace('_', '-')}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return shlex.join(words)


def _settings(arguments: Arguments, sides: list[int], output: Path) -> Settings:
    for option, value in (
        ("size", sides[0]),
        ("repeats", arguments.repeats),
        ("threads", arguments.threads),
    ):
        if value is not None and value < 1:
            raise ValueError(f"--{option} {value}: must be at least 1")
    if sides[-1] > MAX_SIDE:
        raise ValueError(f"--size {sides[-1]}: must be at most {MAX_SIDE:,} pixels")
    if not arguments.time_limit > 0:
        raise ValueError(f"--time-limit {arguments.time_limit:g}: must be more than 0 seconds")
    check_writable(output)
    if arguments.json and Path(arguments.json).is_dir():
        raise ValueError(f"--json {arguments.json}: is a folder, not a file")
    if arguments.json:
        check_writable(Path(arguments.json).parent)
    try:
        memory = default_bound(torch.device("cpu")) if arguments.memory is None else parse_bytes(arguments.memory)
    except ValueError as error:
        raise ValueError(f"--memory {error}") from error
    return Settings(
        memory=memory,
        repeats=arguments.repeats,
        time_limit=arguments.time_limit,
        threads=arguments.threads,
    )
