"""Several processes that share an image get what one gets; see `split_ranks`."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from model_helpers import MODELS
from processes import lines_of
from streaming.split_ranks import drawn
from vision_longformer.streaming.strips import Strips
from vision_longformer.utils.distributed import Processes

pytestmark = pytest.mark.process
CASES = 7


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return lines_of_cases(tmp_path_factory.mktemp("split"), CASES)


def lines_of_cases(folder: Path, cases: int) -> list[Any]:
    found = lines_of("streaming.split_ranks", folder, str(cases))
    return [json.loads(line) for line in found if line.startswith(("[", "{"))]


def assert_same(case: dict[str, Any]) -> None:
    assert max(max(rank["errors"].values()) for rank in case["ranks"]) <= 1e-5, case["case"]


def test_two_three_and_four_processes_get_what_one_gets(lines: list[Any]) -> None:
    assert {case["case"]["count"] for case in lines[:CASES]} == {2, 3, 4}
    for case in lines[:CASES]:
        assert_same(case)


@pytest.mark.long
def test_drawn_images_on_several_processes_get_what_one_gets(tmp_path: Path) -> None:
    for case in lines_of_cases(tmp_path, 40)[:40]:
        assert_same(case)


def test_strips_cover_every_map_once(lines: list[Any]) -> None:
    for number, case in enumerate(lines[:CASES]):
        model = MODELS[drawn(number).model]
        for stage, stride in enumerate(model.strides):
            spans = [rank["rows"][stage] for rank in case["ranks"]]
            assert spans[0][0] == 0
            assert spans[-1][1] == -(-case["case"]["height"] // stride)
            assert all(above[1] == below[0] for above, below in pairwise(spans))


def test_processes_without_a_strip_take_part() -> None:
    size = (39, 74)
    strips = [Strips(MODELS["windowed"], size, Processes(4, rank)) for rank in range(4)]
    assert [one.own for one in strips] == [(0, 39), (39, 39), (39, 39), (39, 39)]
    assert [one.seen_pixels() for one in strips][1:] == [(39, 39)] * 3


@pytest.mark.parametrize("moment", [0, 1], ids=["early", "late"])
def test_a_killed_process_and_its_neighbour_go_on_where_both_were(moment: int, lines: list[Any]) -> None:
    run = lines[CASES + moment]
    for bands, again in zip(run["bands"], run["again"], strict=True):
        assert again["same"]
        assert 0 < again["bands"] < bands


def test_what_one_process_cannot_read_or_write_all_say(lines: list[Any]) -> None:
    first, second = lines[CASES + 2]
    assert first == second
    assert first[0] == "scene.tif: is damaged"
    assert first[1].endswith("file/process-1-of-2: not a directory")
