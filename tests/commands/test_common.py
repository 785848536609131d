"""What the commands share."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from vision_longformer.commands.common import StoppedError, stopped_by_sigterm


class Falls:
    """Is told to stop while it is deleted, where Python drops what is raised."""

    def __del__(self) -> None:
        _terminate()


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.001)  # Python's handler runs before the next line


@pytest.fixture(autouse=True)
def _handlers_are_put_back() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    yield
    assert (signal.getsignal(signal.SIGTERM), sys.unraisablehook) == before


def test_sigterm_is_raised_where_it_comes() -> None:
    with pytest.raises(StoppedError), stopped_by_sigterm():  # noqa: PT012
        _terminate()
        pytest.fail("went on")


def test_sigterm_in_a_callback_whose_errors_are_dropped_is_raised_soon_after() -> None:
    with pytest.raises(StoppedError), stopped_by_sigterm():  # noqa: PT012
        Falls()
        time.sleep(5)
        pytest.fail("went on")


def test_what_is_dropped_is_raised_again_however_slow_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def starts_slowly(thread: threading.Thread) -> None:
        start(thread)
        time.sleep(0.05)  # in the hook that sees what is dropped: many moments

    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", starts_slowly)
    with pytest.raises(StoppedError), stopped_by_sigterm():  # noqa: PT012
        Falls()
        time.sleep(5)
        pytest.fail("went on")


def test_what_is_dropped_many_times_is_raised_at_last() -> None:
    with pytest.raises(StoppedError), stopped_by_sigterm():  # noqa: PT012
        for _ in range(5):
            Falls()
        time.sleep(5)
        pytest.fail("went on")


def test_it_is_raised_at_the_end_if_that_comes_first() -> None:
    with pytest.raises(StoppedError), stopped_by_sigterm():
        Falls()


def test_another_sigterm_does_not_disturb_what_is_put_in_order() -> None:
    order = []
    with pytest.raises(StoppedError), stopped_by_sigterm():  # noqa: PT012
        try:
            _terminate()
        finally:
            _terminate()
            order.append("is put")
    assert order == ["is put"]


def test_other_errors_that_are_dropped_are_told_of_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fails:
        def __del__(self) -> None:
            raise KeyError("x")

    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: seen.append(repr(dropped.exc_value)))
    with stopped_by_sigterm():
        Fails()
    assert seen == ["KeyError('x')"]
    monkeypatch.undo()
