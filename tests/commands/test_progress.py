"""What is said while a streamed image is encoded."""

from __future__ import annotations

from pathlib import Path

from vision_longformer.commands.progress import LOG_SECONDS, StreamedShare
from vision_longformer.images.find import Source

FIRST, SECOND = (Source(Path(name), name) for name in ("first.tif", "second.tif"))


class Told:
    """A clock that is set by hand, and the lines that were shown."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lines: list[str] = []
        self.logged: list[str] = []
        self.share = StreamedShare(self._show, clock=lambda: self.now)

    def _show(self, line: str, often_enough: bool) -> None:
        self.lines.append(line)
        if often_enough:
            self.logged.append(line)

    def __call__(self, source: Source, share: float, *, after: float) -> str:
        self.now += after
        self.share(source, share, 200_000_000)
        return self.lines[-1]


def test_speed_and_time_left() -> None:
    told = Told()
    assert told(FIRST, 0.0, after=0) == "first.tif: 0%"
    assert told(FIRST, 0.25, after=50) == "first.tif: 25%, 1.00 megapixels/s, 2 min left"
    assert told(FIRST, 1.0, after=50) == "first.tif: 100%, 2.00 megapixels/s, 0 s left"


def test_what_an_earlier_run_did_has_no_speed() -> None:
    told = Told()
    assert told(FIRST, 0.5, after=0) == "first.tif: 50%"
    assert told(FIRST, 0.75, after=10) == "first.tif: 75%, 5.00 megapixels/s, 10 s left"


def test_each_image_begins_anew() -> None:
    told = Told()
    told(FIRST, 0.0, after=0)
    told(FIRST, 1.0, after=1)
    assert told(SECOND, 0.1, after=1000) == "second.tif: 10%"
    assert told(SECOND, 0.2, after=10) == "second.tif: 20%, 2.00 megapixels/s, 1 min left"


def test_a_log_has_a_line_now_and_then() -> None:
    told = Told()
    for step in range(4):
        told(FIRST, step / 10, after=LOG_SECONDS / 2)
    assert told.logged == [told.lines[2]]
