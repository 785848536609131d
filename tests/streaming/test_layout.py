from __future__ import annotations

from vision_longformer.streaming.layout import Pass, Step, passes


def test_a_pass_ends_where_a_map_is_held() -> None:
    first, second, third = passes((1, 2, 1, 2))
    assert first == Pass(None, (Step(0, None), Step(0, 0, ends=True), Step(1, None), Step(1, 0)), (1, 1))
    of_stages = Step(1, 1, ends=True), Step(2, None), Step(2, 0, ends=True), Step(3, None), Step(3, 0)
    assert second == Pass(1, of_stages, (3, 1))
    assert third == Pass(3, (Step(3, 1, ends=True),), None)
    assert [one.ending for one in (first, second, third)] == [[0], [1, 2], [3]]


def test_every_block_may_be_a_pass() -> None:
    first, second, third = passes((1, 2), every_block=True)
    assert first == Pass(None, (Step(0, None), Step(0, 0, ends=True), Step(1, None)), (1, 0))
    assert second == Pass(1, (Step(1, 0),), (1, 1))
    assert third == Pass(1, (Step(1, 1, ends=True),), None)
