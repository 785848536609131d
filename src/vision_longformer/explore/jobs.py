"""Work in the background of the page, one job at a time, whose progress the page asks for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OnShare = Callable[[float], None]


class BusyError(ValueError):
    """Another job is running."""


@dataclass
class Job:
    """Work that was begun.

    Attributes:
        kind: What it does.
        share: How much of it is done, from 0 to 1.
        state: Whether it is still running.
        message: What came of it, or why it failed.
        found: What it found, for JSON.
    """

    kind: str
    share: float = 0.0
    state: str = "running"
    message: str = ""
    found: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what the page sees."""
        return vars(self)


class Jobs:
    """Runs one job at a time."""

    def __init__(self) -> None:
        self.latest: Job | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self, kind: str, work: Callable[[OnShare], tuple[str, dict[str, Any] | None]]) -> Job:
        """Begin work that tells its progress and returns a sentence and what it found.

        Raises:
            BusyError: Another job is running.
        """
        with self._lock:
            if self.latest is not None and self.latest.state == "running":
                raise BusyError("something else is being computed: wait until it is done")
            job = self.latest = Job(kind)

        def tell(share: float) -> None:
            job.share = share

        def run() -> None:
            try:
                job.message, job.found = work(tell)
                job.share, job.state = 1.0, "done"
            except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
                job.message, job.state = str(error) or "there is not enough memory", "failed"
            except BaseException:
                job.message, job.state = "it failed for a reason that the terminal tells", "failed"
                raise

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        return job

    def wait(self) -> None:
        """Return once the job is over."""
        if self._thread is not None:
            self._thread.join()
