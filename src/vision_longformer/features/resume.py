"""The folder in which an image is spilled: what a run that was stopped has finished, and how it was begun."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from vision_longformer.streaming import WorkFolderError
from vision_longformer.streaming.checkpoint import FILE as CHECKPOINT
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.locks import Lock, LockedError

PLAN = "plan.json"  # how the image was begun
LOCK = "lock"


class WorkFolder:
    """The folder for the maps of one image, used by one run at a time; a context manager.

    Nothing is made before `begin` is called. On leaving it is removed. After an exception it stays for the next run,
    but for a `ValueError`, of which `ImageError` is one, where nothing was finished.

    Args:
        path: Of the folder; the folders above it are made if need be.
        identity: Changes with the contents of the image, the model and the settings. What was begun under another one
            is removed.

    Attributes:
        path: As given.
        band_bytes: What the bands of a block were allowed to hold when the image was begun, as other bands round
            otherwise; None if there is nothing to go on from.

    Raises:
        WorkFolderError: On entering: another run is at work there, or it cannot be written.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity
        self.band_bytes: int | None = None
        self._lock: Lock | None = None

    def __enter__(self) -> Self:
        if self.path.exists():
            self._take_lock()
            self.band_bytes = self._begun()
            if self.band_bytes is None:
                self._clear()
        return self

    def begin(self, band_bytes: int) -> None:
        """Make the folder, and note what a later run must repeat.

        Raises:
            WorkFolderError: Another run has just begun there, or it cannot be written.
        """
        if self._lock is None:
            self._take_lock()
        about = {"identity": self.identity, "band_bytes": band_bytes}
        with self._writing(), replacing(self.path / PLAN) as temporary:
            temporary.write_text(json.dumps(about))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        finished = any(self.path.glob(f"**/{CHECKPOINT}"))
        if self._lock is None:
            return
        if error is None or (isinstance(error, ValueError) and not finished):
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()

    def _take_lock(self) -> None:
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / LOCK).touch()
            try:
                self._lock = Lock(self.path / LOCK)
            except (LockedError, FileNotFoundError) as error:  # which another run, just over, has removed
                raise WorkFolderError(
                    f"{self.path}: another run is encoding this image: wait until it is over, or choose another "
                    "--output"
                ) from error

    def _begun(self) -> int | None:
        try:
            about = json.loads((self.path / PLAN).read_text())
            return int(about["band_bytes"]) if about["identity"] == self.identity else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _clear(self) -> None:
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != LOCK:
                entry.unlink()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise WorkFolderError(f"{self.path}: cannot be written ({reason})") from error
