"""The command `vil compare`, with the processes that it starts replaced: each takes seconds to begin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vil import main
from vision_longformer.benchmarking import benchmark
from vision_longformer.benchmarking.worker import Task

TINY = ("--model", "nano", "--size", "32", "64", "--repeats", "1")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Task, dict[str, Any]]]:
    """Return what was asked of child processes."""
    seen: list[tuple[Task, dict[str, Any]]] = []

    def run_here(task: Task, **bounds: Any) -> dict[str, Any]:
        seen.append((task, bounds))
        return {"peak_memory": 5_000_000}

    monkeypatch.setattr(benchmark, "run_child", run_here)
    return seen


def run(*arguments: object) -> int:
    return main(["compare", *(str(argument) for argument in arguments)])


def test_mechanisms_are_measured_shown_and_written(
    output: Path, tmp_path: Path, asked: list[tuple[Task, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.json"
    assert run(*TINY, "--attention", "windowed", "performer", "--output", output, "--json", copy) == 0
    assert [task.size for task, _ in asked] == [(32, 32), (32, 32), (64, 64), (64, 64)]
    shown = capsys.readouterr()
    for cell in ("nano at 32 × 32 pixels", "nano at 64 × 64 pixels", "performer", str(output / "index.html")):
        assert cell in shown.out
    assert "vil: inference at 32: memory of nano with performer" in shown.err.splitlines()
    assert "vil: inference at 64: turn 1 of 1" in shown.err.splitlines()
    stored = json.loads((output / "comparison.json").read_text())
    assert stored == json.loads(copy.read_text())
    assert [(row["attention"], row["side"], row["status"]) for row in stored["rows"]] == [
        ("windowed", 32, "measured"),
        ("performer", 32, "measured"),
        ("windowed", 64, "measured"),
        ("performer", 64, "measured"),
    ]
    assert all(entry["exponents"]["time"] is not None for entry in stored["mechanisms"])
    assert stored["command"].startswith("vil compare --size 32 64 --model nano --attention windowed performer")


def test_every_option_of_the_measurement_reaches_it(output: Path, asked: list[tuple[Task, dict[str, Any]]]) -> None:
    options = ("--memory", "2GB", "--repeats", 2, "--time-limit", 7.5, "--threads", 3)
    assert run("--model", "nano", "--size", 32, 32, "--attention", "full", "full", *options, "--output", output) == 0
    ((task, bounds),) = asked
    assert task == Task("nano", (32, 32), batch=1, threads=3, attention="full", backend=task.backend)
    assert bounds == {"memory": 2 * 10**9, "time_limit": 7.5}
    (row,) = json.loads((output / "comparison.json").read_text())["rows"]
    assert len(row["measurement"]["seconds"]) == len(row["measurement"]["attention_seconds"]) == 2
    assert row["measurement"]["threads"] == 3


def test_benchmark_compares_mechanisms_too(output: Path, asked: list[tuple[Task, dict[str, Any]]]) -> None:
    options = ["--models", "nano", "--sizes", "32", "--attention", "full", "performer", "--repeats", "1"]
    assert main(["benchmark", *options, "--output", str(output)]) == 0
    assert [task.attention for task, _ in asked] == ["full", "performer"]
    stored = json.loads((output / "comparison.json").read_text())
    assert [row["attention"] for row in stored["rows"]] == ["full", "performer"]
    assert stored["command"].startswith("vil benchmark --models nano --attention full performer")


def test_a_bound_of_a_few_megabytes_lets_nothing_run(
    output: Path, asked: list[tuple[Task, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*TINY, "--attention", "windowed", "--memory", "5MB", "--output", output) == 0
    assert asked == []
    assert capsys.readouterr().out.count("would need") >= 2
    assert (output / "index.html").exists()
