"""`vil benchmark`: models side by side, ours and timm's: time, memory, share of what the machine can do."""

from __future__ import annotations

import datetime
import shlex
from pathlib import Path

import torch
from rich.console import Console

from vision_longformer.benchmarking.benchmark import Plan, benchmark, parse_size
from vision_longformer.benchmarking.machine import describe_machine
from vision_longformer.commands.common import Arguments, Parser, UsageError, tell
from vision_longformer.commands.progress import follow_benchmark
from vision_longformer.reports.benchmark_page import Benchmark, benchmark_tables, write_benchmark
from vision_longformer.utils.atomic_files import check_writable
from vision_longformer.utils.system_memory import default_bound, parse_bytes

MODELS = [
    "vision_longformer_tiny",
    "vision_longformer_small",
    "swin_tiny_patch4_window7_224",
    "convnext_tiny",
    "resnet50",
]


def arguments() -> Parser:
    parser = Parser(
        description="Measure models side by side, ours and any of timm's: time, memory, share of the machine's peak."
    )
    add = parser.add_argument
    add("--models", nargs="+", type=str, default=MODELS, metavar="NAME", help="Of `vil models`, or timm's.")
    add("--sizes", nargs="+", type=str, default=["448", "896"], metavar="SIZE", help="Pixels, or HEIGHTxWIDTH.")
    add("--training", action="store_true", help="Measure training steps too.")
    add("--batch", type=int, default=1, metavar="N", help="Images of a pass.")
    add("--runtimes", nargs="+", type=str, default=["eager"], metavar="NAME", help="eager, onnxruntime, openvino.")
    add("--repeats", type=int, default=7, metavar="N", help="Timed turns.")
    add("--threads", type=int | None, metavar="N", help="To compute with; PyTorch's choice by default.")
    add("--memory", type=str | None, metavar="SIZE", help="Bound on a pass, as 8GB; 60%% of what is free by default.")
    add("--time-limit", type=float, default=600.0, metavar="SECONDS", help="For each process that measures memory.")
    add("--output", default="benchmark", type=str, metavar="DIR", help="Folder for index.html, SVGs, benchmark.json.")
    return parser


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
