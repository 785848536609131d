"""What `vil benchmark` and `vil compare` refuse before anything is measured, and that they can be interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vil import main
from vision_longformer.benchmarking import benchmark

OF_BOTH = [
    ("--repeats 0", "repeats 0: must be at least 1"),
    ("--threads 0", "threads 0: must be at least 1"),
    ("--time-limit 0", "--time-limit 0: must be more than 0 seconds"),
    ("--memory lots", "--memory 'lots' is no amount of memory"),
    ("--output file", "file: cannot be written (file is no folder)"),
    ("--output file/below", "file/below: cannot be written ("),
    ("--output /proc/below", "/proc/below: cannot be written ("),
]
OF_ONE = [
    ("benchmark --models vision_longformer_smal", "did you mean 'vision_longformer_small'?"),
    ("benchmark --models resnet5O", "did you mean 'resnet50'?"),
    ("benchmark --sizes 448 0", "size '0': height and width must be at least 1 pixel"),
    ("benchmark --sizes large", "size 'large': write a number of pixels, or HEIGHTxWIDTH such as 896x1344"),
    (f"benchmark --sizes {'9' * 20}", "height and width must be at most 10,000,000 pixels"),
    ("benchmark --batch 0", "batch 0: must be at least 1"),
    ("benchmark --runtimes tensorrt", "no runtime 'tensorrt'"),
    ("benchmark --attention full --models nano tiny", "--models: with --attention, name one of our models"),
    ("benchmark --attention full --sizes 32x64", "--sizes: with --attention, give the sides of squares"),
    ("benchmark --attention full --training", "--attention goes with none of --training, --batch and --runtimes"),
    ("compare --model smal", "no such model; did you mean 'small'?"),
    ("compare --attention performer linfomer", "no such mechanism; did you mean 'linformer'?"),
    ("compare --size 224 0", "--size 0: must be at least 1"),
    (f"compare --size {'9' * 20}", f"--size {'9' * 20}: must be at most 10,000,000 pixels"),
    ("compare --size -3", "--size -3: must be at least 1"),
    ("compare --json .", "--json .: is a folder, not a file"),
    ("compare --json file/below.json", "file: cannot be written (file is no folder)"),
    ("compare --size large", "large"),
]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [*OF_ONE, *((f"{command} {options}", said) for options, said in OF_BOTH for command in ("benchmark", "compare"))],
)
def test_usage_errors_are_one_sentence(
    command: str,
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_child(*_: Any, **__: Any) -> None:
        raise AssertionError("something was measured")

    monkeypatch.setattr(benchmark, "run_child", run_child)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert sentence in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "command", ["benchmark --models vision_longformer_nano --sizes 32", "compare --model nano --size 32"]
)
def test_interrupting_writes_nothing(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "run_child", interrupted)
    assert main([*command.split(), "--output", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "vil: interrupted; what was measured is lost"
    assert not (tmp_path / "out").exists()
