"""Writing files so that a crash never leaves half of one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REMOVALS = 20  # attempts to remove a folder


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; what is written there replaces `target` once all is well.

    The data reach the disk before the name does. After an exception `target` is as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _sync(temporary)
        temporary.replace(target)
        _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside `target`; once all is well it becomes `target`, in place of what was there.

    The data reach the disk before the name does. After an exception `target` is as it was, and the temporary folder is
    gone. One that a killed process left behind goes too: two processes cannot write the same folder at once.
    """
    temporary, outdated = (target.parent / f".{target.name}.{kind}" for kind in ("tmp", "old"))
    target.parent.mkdir(parents=True, exist_ok=True)
    for left_behind in (temporary, outdated):
        _remove_folder(left_behind)
    try:
        temporary.mkdir()
        yield temporary
        _sync_folder(temporary)
        if target.exists():
            target.rename(outdated)
        temporary.rename(target)
        _sync(target.parent)
    finally:
        for done_with in (temporary, outdated):
            _remove_folder(done_with)


def _remove_folder(folder: Path) -> None:
    for _ in range(REMOVALS):  # after a failure, other threads of a library may still be writing into it
        if not folder.exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)


def _sync_folder(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(Path(parent) / name)
        _sync(Path(parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
