from __future__ import annotations

import time

import pytest

from vision_longformer.benchmarking.machine import describe_machine, machine_line
from vision_longformer.benchmarking.timing import (
    MatrixProduct,
    gflops,
    interleaved,
    markdown_table,
    matrix_product_gflops,
    ratios,
    spread,
)


def test_runs_take_turns_after_a_warm_up_that_is_not_counted() -> None:
    called: list[str] = []

    def first() -> None:
        called.append("first")
        time.sleep(0.05 if len(called) == 1 else 0)

    turns: list[int] = []
    seconds = interleaved({"first": first, "second": lambda: called.append("second")}, repeats=3, on_turn=turns.append)
    assert called == ["first", "second"] * 4
    assert turns == [0, 1, 2, 3]
    assert {name: len(times) for name, times in seconds.items()} == {"first": 3, "second": 3}
    assert max(seconds["first"]) < 0.05


@pytest.mark.parametrize(("slow", "passes"), [(25.0, 3), (70.0, 1)])
def test_slow_runs_take_fewer_turns(monkeypatch: pytest.MonkeyPatch, slow: float, passes: int) -> None:
    now = 0.0

    def pass_by() -> None:
        nonlocal now
        now += slow

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    seconds = interleaved({"slow": pass_by, "fast": lambda: None}, repeats=9, most_seconds=60)
    assert seconds == {"slow": [slow] * passes, "fast": [0.0] * 9}


def test_time_is_that_of_the_run() -> None:
    seconds = interleaved({"sleep": lambda: time.sleep(0.02), "nothing": lambda: None}, repeats=2)
    assert all(0.02 <= taken < 0.2 for taken in seconds["sleep"])
    assert all(taken < 0.02 for taken in seconds["nothing"])


def test_a_matrix_product_counts_its_multiply_adds() -> None:
    product = MatrixProduct(16)
    product()
    assert product.multiply_adds == 4096
    assert gflops(4096, 2e-6) == pytest.approx(4.096)
    assert matrix_product_gflops(side=16, repeats=1) > 0


def test_ratios_are_of_the_same_turn() -> None:
    assert ratios([1.0, 6.0], [2.0, 3.0]) == [0.5, 2.0]
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 6.0], [2.0])


def test_results_are_written_as_medians_with_spread_and_as_markdown() -> None:
    assert spread([3.0, 1.0, 2.5]) == "2.50 (1.00 to 3.00)"
    assert spread([3.0, 1.0, 2.5], 0) == "2 (1 to 3)"
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_the_machine_is_described() -> None:
    machine = describe_machine(3)
    assert machine["threads"] == 3
    assert describe_machine()["threads"] == 1
    line = machine_line()
    assert line.startswith(f"{machine['processor']}, 1 threads")
    assert line.endswith("GFLOP/s in a float32 product of 2048×2048 matrices")
