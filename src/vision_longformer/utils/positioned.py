"""Reading and writing at a place of an open file, whatever its own position, which stays as it is.

Systems have calls for this, so that threads don't disturb each other. Where one has none (Windows), threads take turns.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

LARGEST = 2**30  # bytes of a call: systems take no more than some two of these
_one_thread_at_a_time = threading.Lock()


def read_at(descriptor: int, size: int, place: int) -> bytes:
    """Return up to `size` bytes from `place` on; fewer at the end of the file.

    Raises:
        OSError: It cannot be read.
    """
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, place)
    with _at(descriptor, place):
        return os.read(descriptor, size)


def read_into_at(descriptor: int, buffer: memoryview, place: int) -> int:
    """Fill the beginning of `buffer`, of bytes, from `place` on; return how much, 0 at the end of the file.

    Raises:
        OSError: It cannot be read.
    """
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer[:LARGEST]], place)
    data = read_at(descriptor, min(len(buffer), LARGEST), place)
    buffer[: len(data)] = data
    return len(data)


def write_at(descriptor: int, buffer: memoryview, place: int) -> int:
    """Write the beginning of `buffer`, of bytes, from `place` on; return how much.

    Raises:
        OSError: It cannot be written.
    """
    if hasattr(os, "pwritev"):
        return os.pwritev(descriptor, [buffer[:LARGEST]], place)
    with _at(descriptor, place):
        return os.write(descriptor, buffer[:LARGEST])


@contextlib.contextmanager
def _at(descriptor: int, place: int) -> Iterator[None]:
    with _one_thread_at_a_time:
        before = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, place, os.SEEK_SET)
        try:
            yield
        finally:
            os.lseek(descriptor, before, os.SEEK_SET)
