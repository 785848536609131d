"""`vil compare`: the attention mechanisms side by side, against resolution; short for `vil benchmark --attention`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vision_longformer.attention.ablations import list_mechanisms
from vision_longformer.benchmarking.benchmark import Plan, Row
from vision_longformer.benchmarking.comparison import describe
from vision_longformer.commands.common import Arguments
from vision_longformer.commands.measuring import measure
from vision_longformer.commands.terminal import wants_json
from vision_longformer.images import MAX_SIDE
from vision_longformer.reports.comparison_page import Comparison, comparison_report
from vision_longformer.reports.measured import Report
from vision_longformer.utils.atomic_files import check_writable


def run(arguments: Arguments) -> int:
    return compare("compare", arguments, partial(_plan, arguments))


def compare(command: str, arguments: Arguments, plan_of: Callable[..., Plan]) -> int:
    """Measure mechanisms, show and write; see `measure`."""
    return measure(command, arguments, plan_of, partial(_finish, Path(arguments.output)))


def _plan(arguments: Arguments, **bounds: Any) -> Plan:
    for side in arguments.size:
        if side < 1:
            raise ValueError(f"--size {side}: must be at least 1")
        if side > MAX_SIDE:
            raise ValueError(f"--size {side}: must be at most {MAX_SIDE:,} pixels")
    if arguments.json is not None and not wants_json(arguments):
        if Path(arguments.json).is_dir():
            raise ValueError(f"--json {arguments.json}: is a folder, not a file")
        check_writable(Path(arguments.json).parent)
    attentions = tuple(arguments.attention or list_mechanisms())
    return Plan(
        models=(arguments.model,), attentions=attentions, sizes=tuple((side, side) for side in arguments.size), **bounds
    )


def _finish(output: Path, plan: Plan, rows: Sequence[Row], about: dict[str, Any]) -> tuple[Path, Report]:
    comparison = Comparison(plan.models[0], [describe(row) for row in rows], memory=plan.memory, **about)
    report = comparison_report(comparison)
    return report.write(output, "comparison.json"), report
