"""`vil benchmark`: models side by side, ours and timm's: time, memory, share of what the machine can do."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vision_longformer.benchmarking.benchmark import Plan, Row, parse_size
from vision_longformer.commands.common import Arguments
from vision_longformer.commands.compare import compare
from vision_longformer.commands.measuring import measure
from vision_longformer.commands.options.models import MODELS
from vision_longformer.reports.benchmark_page import Benchmark, benchmark_report
from vision_longformer.reports.measured import Report


def run(arguments: Arguments) -> int:
    if arguments.attention is not None:
        return compare("benchmark", arguments, partial(_plan_comparison, arguments))
    return measure("benchmark", arguments, partial(_plan, arguments), partial(_finish, Path(arguments.output)))


def _plan(arguments: Arguments, **bounds: Any) -> Plan:
    return Plan(
        models=tuple(arguments.models or MODELS),
        sizes=tuple(map(parse_size, arguments.sizes)),
        runtimes=tuple(arguments.runtimes),
        training=arguments.training,
        batch=arguments.batch,
        **bounds,
    )


def _plan_comparison(arguments: Arguments, **bounds: Any) -> Plan:
    models = arguments.models or ["small"]
    sizes = tuple(map(parse_size, arguments.sizes))
    if len(models) > 1:
        raise ValueError("--models: with --attention, name one of our models")
    if arguments.training or arguments.batch != 1 or arguments.runtimes != ["eager"]:
        raise ValueError("--attention goes with none of --training, --batch and --runtimes")
    if any(height != width for height, width in sizes):
        raise ValueError("--sizes: with --attention, give the sides of squares")
    return Plan(models=tuple(models), attentions=tuple(arguments.attention), sizes=sizes, **bounds)


def _finish(output: Path, _: Plan, rows: Sequence[Row], about: dict[str, Any]) -> tuple[Path, Report]:
    report = benchmark_report(Benchmark(rows=rows, **about))
    return report.write(output, "benchmark.json"), report
