"""Stopping and killing trainers in processes of their own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from processes import lines_of

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return lines_of("training.signals", tmp_path_factory.mktemp("signals"))


@pytest.fixture(scope="module")
def stops(said: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said if line.startswith("{")]


def test_sigterm_saves_in_every_phase_within_ten_seconds_and_the_run_ends_as_if_it_had_not_been(
    stops: list[dict[str, Any]],
) -> None:
    terminated = [stop for stop in stops if stop.get("signal") == 15]
    phases = ["reading data", "building the model", "a step", "evaluating", "saving"]
    assert [stop["phase"] for stop in terminated] == [*phases, "a step"]  # the last to a whole group of processes
    for stop in terminated:
        assert stop["code"] == 75, stop
        assert stop["seconds"] < 10
        assert "and saved; run the same command to continue" in stop["said"]
        assert "Traceback" not in stop["said"]
        assert stop["code of continuing"] == 0
        assert stop["same"], stop
        assert stop["same metrics"], stop


def test_ctrl_c_saves_too_and_has_its_own_exit_code(stops: list[dict[str, Any]]) -> None:
    (interrupted,) = (stop for stop in stops if stop.get("signal") == 2)
    assert interrupted["code"] == 130
    assert "Traceback" not in interrupted["said"]
    assert interrupted["same"]
    assert interrupted["same metrics"]


def test_a_second_trainer_is_refused_but_not_the_next_one_after_a_kill(stops: list[dict[str, Any]]) -> None:
    second = stops[-1]
    assert second["code"] == 2
    assert second["said"].count("\n") == 1
    assert "another trainer works in this folder; wait for it, stop it, or give another --output" in second["said"]
    assert second["at once after the first was killed"] == 0


def test_killed_runs_end_bit_identical(said: list[str]) -> None:
    assert said[-1].startswith("2 of 2 bit-identical")
