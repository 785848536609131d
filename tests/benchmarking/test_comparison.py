from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from reports.pages import Page
from vision_longformer import create_model
from vision_longformer.attention import limits
from vision_longformer.attention.ablations import list_mechanisms
from vision_longformer.backbone import VisionLongformer
from vision_longformer.benchmarking import benchmark as side_by_side
from vision_longformer.benchmarking import children
from vision_longformer.benchmarking.benchmark import Plan, benchmark
from vision_longformer.benchmarking.children import ChildEndedError, run_child
from vision_longformer.benchmarking.comparison import Row, describe, exponents, fitted_exponent
from vision_longformer.benchmarking.models import comparison_config
from vision_longformer.benchmarking.timing import AttentionClock
from vision_longformer.benchmarking.worker import Task, measure
from vision_longformer.reports import measured
from vision_longformer.reports.comparison_page import Comparison, comparison_report, figures
from vision_longformer.utils import system_memory
from vision_longformer.utils.system_memory import gigabytes, parse_bytes

TASK = Task("nano", (32, 32), batch=1, threads=1, attention="windowed")
MACHINE = {"processor": "<abacus>", "capability": "beads", "threads": 3, "torch": "2", "vision_longformer": "1"}
linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is known on Linux alone")


def row(attention: str, side: int, seconds: float = 1.0, memory: int | None = 10**6, **changes: Any) -> Row:
    found = side_by_side.Row("small", "eager", "inference", (side, side), batch=1, attention=attention)
    times = {"seconds": (seconds, 2 * seconds, 3 * seconds), "attention_seconds": (seconds / 2,) * 3}
    return describe(dataclasses.replace(found, **{**times, "peak_memory": memory, **changes}))


def unmeasured(attention: str, side: int, **changes: Any) -> Row:
    whole = row(attention, side, memory=None, **changes)
    return dataclasses.replace(whole, found=dataclasses.replace(whole.found, seconds=(), attention_seconds=()))


def result(*rows: Row) -> Comparison:
    return Comparison("small", rows, 10**9, MACHINE, "today", "vil compare --output '<b>'")


# --- arithmetic -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.37, 2.0])
def test_exponents_of_power_laws_are_recovered(exponent: float) -> None:
    sizes = [5, 70, 800, 9000]
    assert fitted_exponent(sizes, [3 * size**exponent for size in sizes]) == pytest.approx(exponent)


def test_an_exponent_is_the_least_squares_slope() -> None:
    assert fitted_exponent([1, 10, 100], [1, 100, 100]) == pytest.approx(1.0)


def test_an_exponent_needs_two_sizes_with_positive_values() -> None:
    assert fitted_exponent([5], [1]) is None
    assert fitted_exponent([5, 7, 9], [None, 0, 3]) is None
    assert fitted_exponent([1, 10, 100], [1, None, 100]) == pytest.approx(1.0)


def test_growth_is_told_by_pixels_and_from_measured_sizes_alone() -> None:
    rows = [row("full", side, seconds=side**3, memory=side**4) for side in (64, 128)]
    rows.append(unmeasured("full", 1000, status="refused"))
    found = exponents(rows)
    assert found["time"] == found["attention_time"] == pytest.approx(1.5)
    assert found["peak_memory"] == pytest.approx(2.0)
    assert found["attention_multiply_adds"] == pytest.approx(2.0)
    linear = exponents([row("windowed", side) for side in (224, 448, 896)])
    assert linear["attention_multiply_adds"] == pytest.approx(1.0)


def test_a_row_describes_the_model() -> None:
    measured = side_by_side.Row("nano", "eager", "inference", (448, 448), batch=1, attention="linformer")
    found = describe(measured)
    model = create_model("vision_longformer_nano_ape", attention="linformer")
    larger = create_model("vision_longformer_nano_ape", attention="linformer", img_size=448)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.parameters_at_size == sum(p.numel() for p in larger.parameters()) > found.parameters
    assert 0 < found.attention_multiply_adds < found.multiply_adds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8GB", 8e9),
        ("1.5 GiB", 1.5 * 2**30),
        ("500mb", 5e8),
        ("1024", 1024),
        (" 2 KB ", 2000),
        ("3k", 3e3),
        ("5M", 5e6),
        ("4G", 4e9),
        ("1T", 1e12),
        ("2 TiB", 2**41),
    ],
)
def test_amounts_of_memory_are_read(text: str, expected: float) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1000, "1.0 KB"), (10**6, "1.0 MB"), (123_456_789, "0.12 GB"), (12_345_678_901, "12.3 GB")],
)
def test_no_amount_of_memory_is_shown_as_nothing(size: int, text: str) -> None:
    assert gigabytes(size) == text


@pytest.mark.parametrize("text", ["", "GB", "eight GB", "8 XB", "-1GB", "nan", "inf", "0", "8GBGB", "1e999"])
def test_other_texts_are_no_amounts_of_memory(text: str) -> None:
    with pytest.raises(ValueError, match="is no amount of memory: write a number and a unit"):
        parse_bytes(text)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(ValueError, match="no such model; did you mean 'small'"):
        comparison_config("smal", "windowed")
    with pytest.raises(ValueError, match="no such mechanism; did you mean 'performer'"):
        comparison_config("small", "perfomer")


# --- measuring in this process ----------------------------------------------------------------------------------


def test_a_task_survives_json() -> None:
    task = Task("nano", (32, 45), batch=7, threads=2, attention="partial_linformer")
    assert Task.from_json(task.to_json()) == task


def test_every_pass_is_timed_and_attention_is_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "run_child", lambda *_, **__: {"peak_memory": 7})
    (measured,) = rows_of("windowed", repeats=3, memory=None)
    assert len(measured.seconds) == len(measured.attention_seconds) == 3
    for whole, attention in zip(measured.seconds, measured.attention_seconds, strict=True):
        assert 0 < attention < whole
    assert measured.peak_memory == 7


def test_what_is_loaded_is_said_before_the_pass() -> None:
    loaded: list[int | None] = []
    measure(TASK, on_loaded=loaded.append)
    assert len(loaded) == 1


@linux
def test_the_peak_is_that_of_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    held = 300 * 10**6

    def greedy(self: VisionLongformer, images: torch.Tensor) -> None:
        if images.shape[-1] == 32:
            torch.ones(held // 4)

    monkeypatch.setattr(VisionLongformer, "forward", greedy)
    torch.ones(2 * held // 4)  # an earlier, higher peak
    assert measure(TASK) == pytest.approx(held, rel=0.1)


def test_linear_layers_are_no_part_of_attention_proper(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(10**6))  # each look at the clock is a tick later
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    block = torch.nn.Module()
    block.attn = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(), torch.nn.Linear(3, 3))
    model, stage = torch.nn.Module(), torch.nn.Module()
    stage.blocks, model.stages = torch.nn.ModuleList([block]), torch.nn.ModuleList([stage])
    clock = AttentionClock(model)  # type: ignore[arg-type]
    block.attn(torch.zeros(1, 3))
    assert clock.read() == 5 - 2  # six looks from first to last, five ticks; a tick in each linear layer
    clock.reset()
    assert clock.read() == 0


def test_elsewhere_than_on_linux_memory_is_not_available(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(system_memory, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(system_memory, "_CLEAR", tmp_path / "none" / "none")
    assert measure(TASK) is None
    shown = text(result(row("full", 224, memory=None)))
    assert "does not say how much memory" in shown


# --- bounds -----------------------------------------------------------------------------------------------------


def rows_of(*attentions: str, sides: tuple[int, ...] = (64,), **changes: Any) -> list[side_by_side.Row]:
    sizes = tuple((side, side) for side in sides)
    plan = Plan(("nano",), sizes, attentions=attentions, **{"repeats": 1, "product_side": 64, **changes})
    return list(benchmark(plan))


def test_what_would_not_fit_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "run_child", None)
    (found,) = rows_of("performer", memory=5 * 10**6)
    assert found.status == "too large"
    assert found.note.startswith("would need ")
    assert "more than the bound of 5.0 MB" in found.note
    assert found.forecast_memory is not None
    assert found.forecast_memory > 5 * 10**6


def test_a_refused_size_has_its_sentence_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "run_child", lambda *_, **__: {"peak_memory": 10})
    monkeypatch.setattr(limits, "MAX_MULTIPLY_ADDS", 1)
    refused, fine = rows_of("full", "windowed")
    assert refused.status == "refused"
    assert refused.note.startswith("does not take images of 64×64 pixels (full attention over a map of 16×16 tokens")
    assert (refused.seconds, len(fine.seconds)) == ((), 1)


def test_sizes_go_from_small_to_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "run_child", lambda *_, **__: {"peak_memory": 10})
    rows = rows_of("full", "performer", sides=(64, 32))
    expected = [("full", 32), ("performer", 32), ("full", 64), ("performer", 64)]
    assert [(row.attention, row.size[0]) for row in rows] == expected


def child(code: str, *, memory: int | None, time_limit: float = 60) -> dict[str, Any]:
    """Run Python code in place of `worker`."""
    command = [sys.executable, "-S", "-c", code]
    return run_child(TASK, memory=memory, time_limit=time_limit, command=command)


@linux
def test_a_process_that_grows_is_ended() -> None:
    grows = "print('{\"loaded\": 20000000}', flush=True)\nheld = []\nwhile True: held.append(bytearray(b'1' * 10**6))"
    with pytest.raises(ChildEndedError, match=r"^needs more than 50\.0 MB for a pass$") as ended:
        child(grows, memory=50 * 10**6)
    assert ended.value.status == "killed"


@linux
def test_loading_is_not_bounded() -> None:
    loads = "held = b'1' * 10**8\nimport time; time.sleep(.3)\nprint('{\"refused\": \"no\"}')"
    assert child(loads, memory=10**6) == {"refused": "no"}


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    sleeps = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    with pytest.raises(ChildEndedError, match=r"^took longer than 0\.5 s$") as ended:
        child(sleeps, memory=None, time_limit=0.5)
    assert ended.value.status == "timed out"
    if pid.exists() and pid.read_text():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


@pytest.mark.parametrize("code", ["raise OSError('no luck')", "print('{\"loaded\": 1}'); raise OSError('no luck')"])
def test_a_process_that_fails_says_why(code: str) -> None:
    with pytest.raises(ChildEndedError, match=r"^failed: OSError: no luck$") as ended:
        child(code, memory=None)
    assert ended.value.status == "failed"


def test_an_interrupt_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    def interrupt(process: Any, *_: object) -> None:
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(children, "_watch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        child("import time; time.sleep(100)", memory=None)
    assert started[0].poll() is not None


# --- tables, page, files ----------------------------------------------------------------------------------------


def text(shown: Comparison, width: int = 80) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(comparison_report(shown).for_terminal())
    return capture.get()


def test_tables_fit_a_terminal() -> None:
    rows = [row(name, side, seconds=123.456) for side in (224, 1792) for name in list_mechanisms()]
    shown = text(result(*rows))
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    for cell in ("246912 (123456–370368)", "partial_spatial_reduction", "10,928", "81.9", "6.95"):
        assert cell in shown


def test_what_was_not_measured_says_so() -> None:
    shown = text(
        result(
            unmeasured("full", 448, status="too large", note="would need 3.00 GB", forecast_memory=3 * 10**9),
            unmeasured("performer", 448, status="refused", note="a sentence"),
            unmeasured("linformer", 448, status="timed out", note="took longer", forecast_memory=10**9),
        )
    )
    (full,) = (line for line in shown.splitlines() if "full" in line and "need" in line and "at 448" not in line)
    assert full.split()[-6:] == ["would", "need", "3.00", "GB", "–", "–"]
    assert "Note: full at 448: would need 3.00 GB." in shown
    assert "Note: performer at 448: a sentence." in shown
    assert "timed out" in shown
    assert "(1000)" in shown


def test_published_figures_stand_beside_small_alone() -> None:
    small = result(row("full", 224), row("windowed", 224))
    assert small.to_dict()["mechanisms"][0]["published"]["top1"] == 81.9
    assert small.to_dict()["mechanisms"][1]["published"] is None
    assert "same function as partial_windowed" in small.notes[-1]
    other = dataclasses.replace(small, model="tiny")
    assert other.to_dict()["mechanisms"][0]["published"] is None
    assert other.notes == []
    assert "ImageNet" not in text(other)


def test_the_page_stands_alone_and_escapes(tmp_path: Path) -> None:
    refused = unmeasured("performer", 224, status="refused", note="<script>")
    shown = result(row("full", 224), refused)
    page = comparison_report(shown).write(tmp_path / "new" / "out", "comparison.json")
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "comparison.json",
        "index.html",
        "memory.svg",
        "time.svg",
    ]
    for written in (Page(page), *map(Page, page.parent.glob("*.svg"))):
        written.assert_self_contained()
    shown_page = Page(page)
    assert shown_page.count("svg", "panel") == 4
    for words in ("<script>", "<abacus>", "<b>", "3 threads", "torch 2", "today", "vil compare"):
        assert words in shown_page.text
    assert [row[0] for row in shown_page.section("Exponents").rows()] == ["full", "performer"]
    stored = json.loads((page.parent / "comparison.json").read_text())
    assert stored == json.loads(json.dumps(shown.to_dict()))
    assert stored["rows"][0]["measurement"]["seconds"] == [1.0, 2.0, 3.0]
    assert (stored["machine"]["threads"], stored["memory_bound"]) == (3, 10**9)


def test_a_failure_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(measured, "write_page", fail)
    with pytest.raises(KeyboardInterrupt):
        comparison_report(result(row("full", 224))).write(tmp_path, "comparison.json")
    assert not (tmp_path / "index.html").exists()
    assert list(tmp_path.glob(".*")) == []


def test_partial_forms_are_drawn_like_their_whole_forms_but_dashed() -> None:
    drawn, _ = figures(result(*(row(n, s) for s in (224, 448) for n in list_mechanisms())))
    time, _ = drawn.charts
    lines = {line.label: line for line in time.series}
    assert [line.label for line in drawn.series] == list_mechanisms()  # the legend has each once
    assert lines["performer"].colour == lines["partial_performer"].colour
    assert [name for name, line in lines.items() if line.stroke == "dashed"] == [
        n for n in lines if n.startswith("partial_")
    ]
    assert len({(line.colour, line.stroke) for line in lines.values()}) == len(lines)
    assert len({line.colour for line in lines.values()}) == 7
    assert lines["full"].lines == [[(224, 2.0), (448, 2.0)]]
    assert time.columns == [(time.across(224), "224"), (time.across(448), "448")]


@pytest.mark.slow
def test_a_fresh_process_measures() -> None:
    """The one that `vil compare` starts, from JSON to JSON."""
    peak = run_child(TASK, memory=10**9, time_limit=600)["peak_memory"]
    assert (peak is None) == (sys.platform != "linux")
    assert peak is None or 0 < peak < 10**9
