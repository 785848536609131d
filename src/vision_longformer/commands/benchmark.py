"""`vil benchmark`: models side by side, ours and timm's: time, memory, share of what the machine can do."""

from __future__ import annotations

import datetime
import shlex
from pathlib import Path

import torch
from rich.console import Console

from vision_longformer.benchmarking.benchmark import Plan, benchmark, parse_size
from vision_longformer.benchmarking.benchmark_page import Benchmark, benchmark_tables, write_benchmark
from vision_longformer.benchmarking.machine import describe_machine
from vision_longformer.commands.common import Arguments, UsageError, tell
from vision_longformer.commands.progress import follow_benchmark
from vision_longformer.utils.atomic_files import check_writable
from vision_longformer.utils.system_memory import default_bound, parse_bytes

MODELS = [
    "vision_longformer_tiny",
    "vision_longformer_small",
    "swin_tiny_patch4_window7_224",
    "convnext_tiny",
    "resnet50",
]


def run(arguments: Arguments) -> int:
    output = Path(arguments.output)
    try:
        plan = _plan(arguments, output)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    try:
        result = Benchmark(
            rows=follow_benchmark(
                lambda on_step: benchmark(plan, on_step=on_step), total=plan.steps, console=Console(stderr=True)
            ),
            machine=describe_machine(plan.threads),
            date=datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
            command=_command_line(arguments),
        )
        page = write_benchmark(result, output)
    except KeyboardInterrupt:
        tell("interrupted; what was measured is lost")
        return 130
    except OSError as error:
        tell(f"{output}: cannot be written ({error})")
        return 1
    Console().print(benchmark_tables(result))
    print(f"Look at {page}.")
    return int(any(row.status == "failed" for row in result.rows))


def _plan(arguments: Arguments, output: Path) -> Plan:
    check_writable(output)
    try:
        memory = default_bound(torch.device("cpu")) if arguments.memory is None else parse_bytes(arguments.memory)
    except ValueError as error:
        raise ValueError(f"--memory {error}") from error
    return Plan(
        models=tuple(arguments.models),
        sizes=tuple(map(parse_size, arguments.sizes)),
        runtimes=tuple(arguments.runtimes),
        training=arguments.training,
        batch=arguments.batch,
        repeats=arguments.repeats,
        threads=arguments.threads,
        memory=memory,
        time_limit=arguments.time_limit,
    )


def _command_line(arguments: Arguments) -> str:
    """Return a command that measures the same, with every option written out."""
    words = ["vil", "benchmark"]
    for option, value in vars(arguments).items():
        name = f"--{option.replace('_', '-')}"
        if isinstance(value, bool):
            words += [name] if value else []
        elif value is not None:
            words += [name, *(map(str, value) if isinstance(value, list) else [str(value)])]
    return shlex.join(words)
