"""Writing files so that a crash never leaves half of one."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from vision_longformer.utils.locks import Lock, LockedError

REMOVALS = 20  # attempts to remove a folder
SWAPS = 20  # attempts to put a folder in the place of another
SUFFIX = ".tmp"


def check_writable(folder: Path) -> None:
    """Raise, before work begins, if a folder is not there and cannot be made, or cannot be written.

    Raises:
        OSError: Says so in a sentence.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.exists(place))
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower() if there.is_dir() else f"{there} is no folder"
        raise OSError(f"{folder}: cannot be written ({reason})") from error


@contextlib.contextmanager
def replacing(target: Path, *, private: bool = False, lasting: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `target`; what is written there replaces `target` once all is well.

    The data reach the disk before the name does. After an exception `target` is as it was. What killed processes left
    behind goes; of several processes that write at once, the last one stays.

    Args:
        target: What to write. Who may read and write it is as for any new file.
        private: Whether only this user may, whatever holds for new files.
        lasting: Whether to wait for the disk, which takes longer than all else of a small file. If not, a failure of
            power may leave it empty: for what can be made again, and is checked when it is read.
    """
    with _beside(target, make=_make_private_file if private else _make_file) as temporary:
        yield temporary
        if lasting:
            _sync(temporary)
        temporary.replace(target)
        if lasting:
            _sync(target.parent)


@contextlib.contextmanager
def replacing_from_folder(target: Path) -> Iterator[Path]:
    """Give a path of `target`'s name in a temporary folder beside it, for writers that keep other files beside theirs.

    Otherwise as `replacing`.
    """
    with _beside(target, make=_make_folder) as around:
        temporary = around / target.name
        yield temporary
        _sync(temporary)
        temporary.replace(target)
        _sync(target.parent)


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside `target`; once all is well it becomes `target`, in place of what was there.

    Otherwise as `replacing`.
    """
    with _beside(target, make=_make_folder) as around:
        temporary = around / "new"
        try:
            temporary.mkdir()
            yield temporary
            _sync_folder(temporary)
            _swap(temporary, target, outdated=around)
            _sync(target.parent)
        finally:
            _remove_folder(temporary)


@contextlib.contextmanager
def _beside(target: Path, *, make: Callable[[Path], None]) -> Iterator[Path]:
    """Make an empty file or folder beside `target`, locked as long as this process lives, and remove it at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, lock = _make_locked(target, make)
    with lock:
        try:
            yield temporary
        finally:
            if lock.is_at(temporary):  # once renamed, another process may have made one of its name
                _remove(temporary)


def _make_locked(target: Path, make: Callable[[Path], None]) -> tuple[Path, Lock]:
    """Make the first temporary file or folder of `target` that nobody else is writing.

    Their names are known, so that what killed processes left is found without a look at all that the folder holds.
    """
    for number in itertools.count():
        temporary, following = (target.parent / f".{target.name}.part{n}{SUFFIX}" for n in (number, number + 1))
        _remove_left_behind(temporary)
        # each of these: another process has it, or took it for one left behind
        with contextlib.suppress(FileExistsError, FileNotFoundError, LockedError):
            make(temporary)
            lock = Lock(temporary)
            _remove_left_behind(following)
            return temporary, lock
    raise AssertionError


def _make_file(path: Path, mode: int = 0o666) -> None:
    # the system takes the umask off, which a program can only read by changing it for all of its threads
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))


def _make_private_file(path: Path) -> None:
    _make_file(path, 0o600)


def _make_folder(path: Path) -> None:
    path.mkdir(0o700)


def _remove_left_behind(path: Path) -> None:
    """Remove a temporary file or folder if its process is dead: its lock ended with it."""
    with contextlib.suppress(LockedError, OSError), Lock(path) as lock:
        if lock.held:
            _remove(path)


def _swap(folder: Path, target: Path, *, outdated: Path) -> None:
    """Rename a folder to `target`, and put what is there, which may change meanwhile, into the folder `outdated`."""
    for attempt in range(SWAPS):
        try:
            folder.rename(target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or attempt == SWAPS - 1:
                raise
        with contextlib.suppress(FileNotFoundError):
            target.rename(outdated / f"old{attempt}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
    """Wait until a file, or the names in a folder, have reached the disk; for a folder, where the system can say so."""
    folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Windows opens no folder, and some file systems have nothing to wait for
        if not folder or error.errno not in (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP):
            raise
