"""Runs that encode the same images into the same folder go one after the other, so that the work is done once."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from vision_longformer.features.failures import explaining
from vision_longformer.utils.locks import Lock, LockedError


@contextlib.contextmanager
def one_run(output: Path, names: Iterable[str], *, on_wait: Callable[[], None]) -> Iterator[None]:
    """Wait until no other run encodes images of these names into a folder, and keep others out until the block is over.

    Where the file system has no locks, nobody waits.

    Args:
        output: The folder; created if need be.
        names: Of the images, in any order.
        on_wait: Called before it waits.

    Raises:
        OutputError: The folder cannot be written.
    """
    together = "\n".join(sorted(names)).encode("utf-8", "surrogateescape")
    path = output / f".{hashlib.sha256(together).hexdigest()[:16]}.lock"
    with explaining(path):
        output.mkdir(parents=True, exist_ok=True)
        lock = _taken(path, on_wait)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held, so that nobody takes a lock of what is gone
        lock.release()


def _taken(path: Path, on_wait: Callable[[], None]) -> Lock:
    waits = False
    while True:
        path.touch()
        try:
            return Lock(path, wait=waits)
        except FileNotFoundError:  # the run that is just over has removed it
            continue
        except LockedError:
            if not waits:
                on_wait()
            waits = True
