"""Reading and writing at a place, with the system's calls and without them."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vision_longformer.utils.positioned import read_at, read_into_at, write_at


@pytest.fixture(params=["with", "without"], autouse=True)
def _calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "without":
        for name in ("pread", "preadv", "pwrite", "pwritev"):
            monkeypatch.delattr(os, name, raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[io.BufferedRandom]:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    with path.open("r+b") as opened:
        yield opened


def test_what_is_at_a_place_is_read(file: io.BufferedRandom) -> None:
    buffer = bytearray(6)

    assert read_at(file.fileno(), 3, 10) == bytes([10, 11, 12])
    assert read_into_at(file.fileno(), memoryview(buffer)[:4], 20) == 4
    assert bytes(buffer) == bytes([20, 21, 22, 23, 0, 0])


def test_the_end_of_a_file_ends_what_is_read(file: io.BufferedRandom) -> None:
    buffer = bytearray(6)

    assert read_at(file.fileno(), 5, 98) == bytes([98, 99])
    assert read_at(file.fileno(), 5, 200) == b""
    assert read_into_at(file.fileno(), memoryview(buffer), 98) == 2
    assert bytes(buffer) == bytes([98, 99, 0, 0, 0, 0])
    assert read_into_at(file.fileno(), memoryview(buffer), 100) == 0


def test_bytes_are_written_at_a_place(file: io.BufferedRandom, tmp_path: Path) -> None:
    assert write_at(file.fileno(), memoryview(b"abc"), 50) == 3
    assert write_at(file.fileno(), memoryview(b"z"), 103) == 1
    written = (tmp_path / "file").read_bytes()
    assert written[49:54] == bytes([49]) + b"abc" + bytes([53])
    assert written[100:] == bytes(3) + b"z"


def test_the_files_own_position_stays(file: io.BufferedRandom) -> None:
    file.seek(7)
    read_at(file.fileno(), 3, 90)
    write_at(file.fileno(), memoryview(b"z"), 60)

    assert file.read(2) == bytes([7, 8])


def test_threads_do_not_disturb_each_other(file: io.BufferedRandom) -> None:
    wrong: list[int] = []

    def read(place: int) -> None:
        wrong.extend(place for _ in range(500) if read_at(file.fileno(), 1, place) != bytes([place]))

    threads = [threading.Thread(target=read, args=(place,)) for place in (3, 40, 77)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
