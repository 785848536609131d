"""Giving memory back that bands are done with.

glibc keeps freed blocks of up to 32 MiB in a heap, and bands of changing sizes leave holes there that add up over a
large image. Mapping all blocks one by one leaves none, but then the system clears every page of every band.
"""

from __future__ import annotations

import ctypes
import platform

from vision_longformer.utils.system_memory import resident_memory

GROWTH = 2**25  # bytes by which the process may grow before holes are looked for


class Trimmer:
    """Gives back what is free within the heap, whenever the process has grown; does nothing without glibc."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
        self._before = 0

    def __call__(self) -> None:
        """Look, and give back."""
        if self._library is None or (resident_memory() or 0) < self._before + GROWTH:
            return
        self._library.malloc_trim(0)
        self._before = resident_memory() or 0
