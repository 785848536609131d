"""Two processes, over gloo, against one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from processes import lines_of
from vision_longformer.utils.devices import choose_device
from vision_longformer.utils.distributed import Processes, join

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    lines = lines_of("training.ranks", tmp_path_factory.mktemp("ranks"))
    return [json.loads(line) for line in lines if line.startswith(("[", "{"))]


def test_two_processes_follow_the_losses_of_one(runs: list[Any]) -> None:
    (alone,), both = runs[0], runs[1]
    assert len(alone["losses"]) == 20
    assert len(alone["evaluations"]) == 5
    for rank in both:
        assert rank["losses"] == pytest.approx(alone["losses"], abs=1e-5)
        assert rank["evaluations"] == pytest.approx(alone["evaluations"], abs=1e-4)


def test_processes_share_every_evaluation_the_one_of_the_best_weights_at_the_end_too(runs: list[Any]) -> None:
    first, second = runs[1]
    assert len(first["evaluated"]) == len(second["evaluated"]) == 5 + 1
    for own, others in zip(first["evaluated"], second["evaluated"], strict=True):
        assert (len(own), len(others)) == (4, 3)
        assert sorted(own + others) == list(range(7))


@pytest.mark.parametrize("run", [1, 2], ids=["nothing random", "everything random"])
def test_all_processes_hold_the_same_weights_averages_and_random_projections(run: int, runs: list[Any]) -> None:
    first, second = runs[run]
    assert first["digests"].keys() == {"model", "ema"}
    assert first["digests"] == second["digests"]
    assert first["losses"] == second["losses"]
    assert first["evaluations"] == second["evaluations"]


def test_a_stop_that_one_process_is_asked_for_stops_all_and_they_continue_exactly(runs: list[Any]) -> None:
    lives = runs[3]
    assert lives["kinds"][:2] == [["stopped", "stopped"]] * 2
    assert lives["kinds"][-1] == ["finished", "finished"]
    assert lives["same"]


def test_two_processes_follow_one_in_detection(runs: list[Any]) -> None:
    """Images are padded to those of their process alone, which our backbones do not see."""
    (alone,), both = runs[4], runs[5]
    assert len(alone["losses"]) == 6
    for rank in both:
        assert rank["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        assert rank["evaluations"] == pytest.approx(alone["evaluations"], abs=1e-3)
    assert both[0]["digests"] == both[1]["digests"]


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert join("cpu") == Processes() == Processes(count=1, rank=0)
    assert Processes().is_first
    assert not Processes(2, 1).is_first


def test_a_device_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="device 'cuda:99' is not available"):
        choose_device("cuda:99")
    assert choose_device("cpu", number=1).type == "cpu"
