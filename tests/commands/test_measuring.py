"""What `vil benchmark` and `vil compare` refuse alike, before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vil import main
from vision_longformer.benchmarking import benchmark


@pytest.fixture
def _measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_child(*_: Any, **__: Any) -> None:
        raise AssertionError("something was measured")

    monkeypatch.setattr(benchmark, "run_child", run_child)


@pytest.mark.usefixtures("_measures_nothing")
@pytest.mark.parametrize("command", ["benchmark", "compare"])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--repeats", "0"], "repeats 0: must be at least 1"),
        (["--threads", "0"], "threads 0: must be at least 1"),
        (["--memory", "lots"], "--memory 'lots' is no amount of memory"),
        (["--output", "file"], "file: cannot be written (file is no folder)"),
        (["--output", "file/below"], "file/below: cannot be written ("),
        (["--output", "/proc/below"], "/proc/below: cannot be written ("),
    ],
)
def test_usage_errors_are_one_sentence(
    command: str,
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    assert main([command, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert sentence in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
