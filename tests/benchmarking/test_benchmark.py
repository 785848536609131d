"""Models side by side, with the processes that measure memory replaced: each takes seconds to begin."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vision_longformer.benchmarking import benchmark as side_by_side
from vision_longformer.benchmarking import worker
from vision_longformer.benchmarking.benchmark import Plan, Row, benchmark, parse_size, size_name
from vision_longformer.benchmarking.children import ChildEndedError, run_child
from vision_longformer.benchmarking.models import build_model, count_multiply_adds, count_parameters
from vision_longformer.benchmarking.runtimes import check_output, export, open_session, require_runtime
from vision_longformer.benchmarking.worker import Task
from vision_longformer.export.onnx import ExportError

NANO, RESNET, XCIT = "vision_longformer_nano", "resnet18", "xcit_tiny_12_p16_224"
SIZE = (40, 64)


def plan(*models: str, **changes: Any) -> Plan:
    return Plan(**{"models": models, "sizes": (SIZE,), "repeats": 2, "product_side": 64, "threads": 1, **changes})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Task, dict[str, Any]]]:
    """Return what was asked of child processes."""
    seen: list[tuple[Task, dict[str, Any]]] = []

    def run_here(task: Task, **bounds: Any) -> dict[str, Any]:
        seen.append((task, bounds))
        return {"peak_memory": 1000 * len(seen)}

    monkeypatch.setattr(side_by_side, "run_child", run_here)
    return seen


@pytest.mark.slow
def test_models_are_measured_in_turns_at_each_size_and_mode(asked: list[tuple[Task, dict[str, Any]]]) -> None:
    steps: list[str] = []
    chosen = plan(NANO, RESNET, sizes=((64, 64), SIZE), training=True, batch=3, memory=10**9, time_limit=9.0)
    rows = list(benchmark(chosen, on_step=steps.append))
    assert len(steps) == chosen.steps
    assert [(row.mode, row.size, row.model) for row in rows] == [
        (mode, size, model)
        for mode in ("inference", "training")
        for size in (SIZE, (64, 64))
        for model in (NANO, RESNET)
    ]
    for row, (task, bounds) in zip(rows, asked, strict=True):
        assert row.status == "measured"
        assert (len(row.seconds), len(row.product_seconds), row.product_multiply_adds) == (2, 2, 64**3)
        assert (task.model, task.size, task.batch) == (row.model, row.size, 3)
        assert (task.training, task.threads) == (row.mode == "training", 1)
        assert bounds == {"memory": 10**9, "time_limit": 9.0}
    assert [row.peak_memory for row in rows] == [1000 * number for number in range(1, 9)]
    passes, steps_of_training = rows[0], rows[4]
    assert passes.multiply_adds == count_multiply_adds(NANO, SIZE)
    assert steps_of_training.multiply_adds == 3 * count_multiply_adds(NANO, SIZE)


def test_what_a_model_refuses_is_said_and_the_others_are_measured(asked: list[tuple[Task, dict[str, Any]]]) -> None:
    refused, measured = benchmark(plan(XCIT, NANO))
    assert (refused.status, refused.seconds) == ("refused", ())
    assert refused.note.startswith("does not take images of 40×64 pixels (")
    assert (measured.status, len(measured.seconds)) == ("measured", 2)
    assert [task.model for task, _ in asked] == [NANO]


def test_a_model_that_needs_too_much_memory_is_not_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(task: Task, *_: Any, **__: Any) -> dict[str, Any]:
        if task.model == RESNET:
            raise ChildEndedError("killed", "needs more than 5 MB for a pass")
        return {"refused": "no"} if task.model == XCIT else {"peak_memory": None}

    monkeypatch.setattr(side_by_side, "run_child", end)
    rows = list(benchmark(plan(RESNET, XCIT, NANO, sizes=((64, 64),))))
    assert [(row.status, len(row.seconds)) for row in rows] == [("killed", 0), ("refused", 0), ("measured", 2)]
    assert rows[0].note == "needs more than 5 MB for a pass"


def test_what_is_forecast_not_to_fit_is_not_begun(
    asked: list[tuple[Task, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "randn", None)
    rows = list(benchmark(plan(NANO, RESNET, sizes=((100_000, 90_000),), training=True, batch=2, memory=10**9)))
    assert [(row.status, row.seconds) for row in rows] == [("too large", ())] * 4
    assert rows[1].note == "would need at least 216.0 GB for a pass, more than the bound of 1.00 GB"
    assert not asked


def test_threads_are_restored(asked: list[tuple[Task, dict[str, Any]]]) -> None:
    list(benchmark(plan(NANO, threads=2, repeats=1)))
    assert torch.get_num_threads() == 1
    assert [task.threads for task, _ in asked] == [2]


def test_a_share_of_the_peak_is_of_the_same_turn() -> None:
    row = Row(
        NANO, "eager", "inference", SIZE, batch=2, multiply_adds=50, seconds=(1.0, 4.0), product_seconds=(2.0, 1.0)
    )
    # 100 multiply-adds in 1 s beside 400 in 2 s; then 100 in 4 s beside 400 in 1 s
    assert dataclasses.replace(row, product_multiply_adds=400).shares_of_peak == [0.5, 0.0625]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"models": ()}, "models: name at least one"),
        ({"models": ("resnet5O",)}, "did you mean 'resnet50'"),
        ({"sizes": ()}, "sizes: name at least one"),
        ({"sizes": ((0, 64),)}, "size 0×64: height and width must be at least 1 pixel"),
        ({"repeats": 0}, "repeats 0: must be at least 1"),
        ({"batch": -1}, "batch -1: must be at least 1"),
        ({"threads": 0}, "threads 0: must be at least 1"),
        ({"time_limit": 0.0}, "time limit 0: must be more than 0 seconds"),
        ({"attentions": ("performer",)}, "there is no such model; did you mean 'nano'"),
        ({"models": ("nano",), "attentions": ("perfomer",)}, "no such mechanism; did you mean 'performer'"),
        (
            {"models": ("nano",), "attentions": ("full",), "runtimes": ("eager", "onnxruntime")},
            "in eager PyTorch, without other runtimes",
        ),
        ({"runtimes": ("eager", "tensorrt")}, "no runtime 'tensorrt': choose among eager, onnxruntime, openvino"),
    ],
)
def test_an_impossible_plan_is_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        plan(NANO, **changes)


def test_a_missing_runtime_is_answered_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "openvino" else object())
    require_runtime("onnxruntime")
    with pytest.raises(ValueError, match=r"openvino needs openvino, .* pip install 'vision-longformer\[benchmark\]'"):
        require_runtime("openvino")


@pytest.mark.parametrize(
    ("text", "size", "name"),
    [("448", (448, 448), "448"), ("896x1344", (896, 1344), "896×1344"), ("7×5", (7, 5), "7×5")],
)
def test_sizes_are_read_and_named_height_first(text: str, size: tuple[int, int], name: str) -> None:
    assert parse_size(text) == size
    assert size_name(size) == name


@pytest.mark.parametrize("text", ["", "big", "0", "64x", "-3", "1x2x3", "6.5"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size '.*': "):
        parse_size(text)


@pytest.mark.slow
def test_memory_is_that_of_a_fresh_process() -> None:
    task = Task(NANO, (224, 160), batch=2, threads=1)
    assert Task.from_json(task.to_json()) == task
    peaks = [
        run_child(dataclasses.replace(task, training=training), memory=None, time_limit=600)["peak_memory"]
        for training in (False, True)
    ]
    if None in peaks:
        pytest.skip("this system does not tell how much memory a process has taken")
    inference, training = peaks
    parameters = count_parameters(NANO, task.size)
    assert 4 * 2 * 56 * 40 * 32 < inference < training  # at least the first map of tokens
    assert training > 3 * 4 * parameters  # gradients, and the two averages that AdamW keeps


def test_a_process_says_what_a_model_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(Task(XCIT, SIZE, batch=1, threads=1).to_json()))
    worker.main()
    assert "patch_size" in json.loads(capsys.readouterr().out.splitlines()[-1])["refused"]


@pytest.mark.parametrize(("runtime", "name"), [("onnxruntime", RESNET), ("openvino", RESNET), ("openvino", NANO)])
def test_an_exported_model_gives_the_same_and_another_is_refused(runtime: Any, name: str, tmp_path: Path) -> None:
    for module in ("onnx", "onnxscript", runtime):
        pytest.importorskip(module)
    images, target = torch.randn(2, 3, *SIZE), tmp_path / "model.onnx"
    model = build_model(name, SIZE)
    export(model, images, target)
    session = open_session(runtime, target, threads=1)
    check_output(model, images, session)
    assert np.asarray(session(images.numpy())).shape == (2, 1000)
    with pytest.raises(ExportError, match="gives another result once exported"):
        check_output(build_model(name, SIZE), images, session)


def test_a_model_that_cannot_be_exported_is_measured_in_eager_mode_alone(
    asked: list[tuple[Task, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[str] = []

    def refuse(model: object, images: object, target: Path) -> None:
        attempts.append(target.stem)
        raise ExportError("cannot be exported to ONNX (no such operator)")

    monkeypatch.setattr(side_by_side, "require_runtime", lambda name: None)
    monkeypatch.setattr(side_by_side, "export", refuse)
    chosen = plan(NANO, sizes=(SIZE, (64, 64)), runtimes=("eager", "onnxruntime", "openvino"))
    rows = list(benchmark(chosen))
    assert [row.status for row in rows] == ["measured", "refused", "refused"] * 2
    assert rows[1].note == "cannot be exported to ONNX (no such operator)"
    assert attempts == [NANO]  # not tried again
