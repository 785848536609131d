"""Locks of files, and processes that are forked while they are held."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vision_longformer.utils import locks
from vision_longformer.utils.locks import Lock, LockedError

pytestmark = pytest.mark.process


def test_a_forked_process_does_not_keep_a_lock(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    lock = Lock(file)
    ready, end = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end[1])
        os.write(ready[1], b".")
        os.read(end[0], 1)  # returns once the parent is done
        os._exit(0)
    os.read(ready[0], 1)
    try:
        with pytest.raises(LockedError):
            Lock(file)
        lock.release()
        with Lock(file) as again:
            assert again.held
    finally:
        os.close(end[1])
        os.waitpid(child, 0)
        for descriptor in (end[0], *ready):
            os.close(descriptor)


def test_locks_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with Lock(tmp_path / "file"):
        pass
    monkeypatch.setattr(os, "register_at_fork", lambda **_: pytest.fail("another callback that stays"))
    before = len(locks._held)
    for _ in range(3):
        with Lock(tmp_path / "file"):
            pass
    assert len(locks._held) <= before
