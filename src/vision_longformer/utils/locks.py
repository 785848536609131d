"""Locks of files and folders between processes. The system frees them when a process ends, however it ends.

A process that is forked meanwhile, to read images for instance, does not share them: it may outlive this one.
"""

from __future__ import annotations

import functools
import os
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

_held: weakref.WeakSet[Lock] = weakref.WeakSet()


@functools.cache
def _release_in_children() -> None:
    """Let forked processes go without the locks of this one; once for all locks, as this cannot be taken back."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_release_all)


def _release_all() -> None:
    for lock in list(_held):
        lock.release()


class LockedError(Exception):
    """Somebody else holds the lock, or has just removed what was to be locked."""


class Lock:
    """The lock of a file or folder, from now until `release`; a context manager.

    Args:
        path: Of what is locked; it must exist.
        wait: Whether to wait while somebody else holds it.

    Attributes:
        held: False where the system, or the file system, has no locks. Then nobody is kept out.

    Raises:
        LockedError: Somebody else holds it, or it is no longer there once they do not.
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path, *, wait: bool = False) -> None:
        self.held = False
        self._descriptor: int | None = None
        if fcntl is None:
            return
        self._descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            self.held = True
            _release_in_children()
            _held.add(self)
        except BlockingIOError as error:
            self.release()
            raise LockedError(str(path)) from error
        except OSError:
            return
        if not self.is_at(path):
            self.release()
            raise LockedError(str(path))

    def is_at(self, path: Path) -> bool:
        """Tell whether what is locked is still at `path`; where there are no locks, whether anything is."""
        try:
            found = path.stat()
            return self._descriptor is None or os.path.samestat(os.fstat(self._descriptor), found)
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let others in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self.held = None, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
