"""`make bench` repeats what docs/results/performance.md reports, and each script is told of."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_make_bench_runs_each_command_of_the_page_once() -> None:
    page = " ".join((ROOT / "docs/results/performance.md").read_text().split())
    named = set(re.findall(r"`python (benchmarks/[^`]*)`", page))
    run = re.findall(r"^\t\$\(BIN\)/python (benchmarks/.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert sorted(run) == sorted(named)


def test_each_script_is_told_of() -> None:
    told = set(re.findall(r"`(\w+\.py)`", (ROOT / "docs/benchmark.md").read_text()))
    assert told == {script.name for script in (ROOT / "benchmarks").glob("*.py")}
