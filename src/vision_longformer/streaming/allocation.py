"""Giving the memory of bands back as soon as they are done with.

glibc keeps blocks of up to 32 MiB in a heap, once it has seen some of that size, and bands of changing sizes leave holes
there that add up over a large image. Blocks that are mapped one by one leave none.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of mallopt
SMALL, LARGE = 2**20, 2**25  # bytes from which blocks are mapped: while streaming, and where glibc ends up by itself


@contextmanager
def returning_memory() -> Iterator[None]:
    """Map blocks of a mebibyte and more one by one inside the `with` block; do nothing without glibc."""
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    library.malloc_trim(0)
    library.mallopt(MMAP_THRESHOLD, SMALL)
    try:
        yield
    finally:
        library.mallopt(MMAP_THRESHOLD, LARGE)
