from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from vision_longformer.features.read_ahead import read_ahead


def test_items_come_in_order_whichever_is_read_first() -> None:
    def read(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number**2

    found = list(read_ahead(range(10), read, workers=3, ahead=4))
    assert found == [(number, number**2) for number in range(10)]


def test_no_more_is_taken_than_is_ahead() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with contextlib.closing(read_ahead(numbers(), str, workers=2, ahead=3)) as reading:
        for number, _ in reading:
            assert len(taken) <= number + 4
            if number == 5:
                break


def test_an_error_is_raised_when_it_is_the_items_turn() -> None:
    def read(number: int) -> int:
        return 1 // (number - 2)

    reading = read_ahead(range(5), read, workers=2, ahead=4)
    assert [next(reading)[0], next(reading)[0]] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(reading)


def test_closing_ends_the_threads() -> None:
    reading = read_ahead(range(10**6), str, workers=2, ahead=5)
    next(reading)
    reading.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read")]
