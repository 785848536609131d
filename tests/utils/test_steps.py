from __future__ import annotations

import pytest

from vision_longformer.utils.steps import Progress, Steps, finish, in_threads


def test_results_stand_in_the_order_of_the_items_and_each_tells_how_far_the_work_is() -> None:
    steps = in_threads("squares", [3, 1, 2], lambda number: number**2)
    told = []

    def listen() -> Steps[list[int]]:
        result = yield from steps
        told.append("end")
        return result

    listening = listen()
    for progress in listening:
        told.append(progress)  # type: ignore[arg-type]
    assert told == [Progress("squares", 1, 3), Progress("squares", 2, 3), Progress("squares", 3, 3), "end"]
    assert finish(in_threads("squares", [3, 1, 2], lambda number: number**2)) == [9, 1, 4]
    assert finish(in_threads("squares", [], lambda number: number)) == []


def test_an_error_in_a_thread_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        finish(in_threads("inverses", [1, 0, 2], lambda number: 1 / number))
