"""A window over the rows of something long, always in one piece."""

from __future__ import annotations

from torch import Tensor


class RowBuffer:
    """Holds the last rows that were appended, as many as its buffer has.

    Args:
        buffer: (capacity, ...), to be filled.
        first: Number of the first row that comes.
    """

    def __init__(self, buffer: Tensor, *, first: int = 0) -> None:
        self._buffer = buffer
        self._first = first  # the number of the row that the buffer begins with
        self._end = first

    def append(self, count: int, kept: int) -> Tensor:
        """Return a view of `count` new rows, to be filled. Rows before number `kept` may be forgotten."""
        if self._end + count - self._first > len(self._buffer):
            self._forget(kept)
        start = self._end - self._first
        self._end += count
        assert self._end - self._first <= len(self._buffer)
        return self._buffer[start : start + count]

    def rows(self, top: int, bottom: int) -> Tensor:
        """Return a view of rows `top` to `bottom`."""
        assert self._first <= top <= bottom <= self._end
        return self._buffer[top - self._first : bottom - self._first]

    def _forget(self, kept: int) -> None:
        """Move what is left to the front, in pieces that do not overlap with where they go."""
        step, count = kept - self._first, self._end - kept
        if step == 0:
            return
        for start in range(0, count, step):
            stop = min(start + step, count)
            self._buffer[start:stop] = self._buffer[start + step : stop + step]
        self._first = kept
