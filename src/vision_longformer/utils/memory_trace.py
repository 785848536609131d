"""The memory of this process over time, sampled while it works."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from vision_longformer.utils.system_memory import resident_memory

INTERVAL = 0.1  # seconds between samples, at first
MAX_SAMPLES = 1000  # more are thinned: of each pair the larger is kept, and samples are taken half as often


@dataclass(frozen=True)
class Sample:
    """Resident memory at a moment.

    Attributes:
        seconds: Since the trace began.
        bytes: That the process held.
    """

    seconds: float
    bytes: int


@dataclass(frozen=True)
class Span:
    """When an image was worked on, and what was forecast for the process meanwhile.

    Attributes:
        start: In seconds since the trace began, as is `end`.
        end: In seconds.
        forecast: Bytes that the plan allowed for; None without a plan.
        whole: Bytes that a pass over the whole image would need; None if it is not known.
    """

    start: float
    end: float
    forecast: int | None
    whole: int | None


@dataclass
class MemoryTrace:
    """What was seen of the memory of a run.

    Attributes:
        samples: From first to last; none where the system does not tell.
        spans: Of the images.
    """

    samples: list[Sample] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    _begin: float = field(default_factory=time.monotonic)

    def now(self) -> float:
        """Return the seconds since the trace began."""
        return time.monotonic() - self._begin


@contextmanager
def trace_memory() -> Iterator[MemoryTrace]:
    """Sample the memory of this process inside the `with` block, in a thread of its own."""
    trace, stop = MemoryTrace(), threading.Event()
    thread = threading.Thread(target=_sample, args=(trace, stop), daemon=True)
    thread.start()
    try:
        yield trace
    finally:
        stop.set()
        thread.join()


def _sample(trace: MemoryTrace, stop: threading.Event) -> None:
    interval = INTERVAL
    while True:
        resident = resident_memory()
        if resident is None:
            return
        trace.samples.append(Sample(trace.now(), resident))
        if len(trace.samples) >= MAX_SAMPLES:
            trace.samples[:] = thinned(trace.samples)
            interval *= 2
        if stop.wait(interval):
            trace.samples.append(Sample(trace.now(), resident_memory() or resident))
            return


def thinned(samples: list[Sample]) -> list[Sample]:
    """Return the larger one of each pair, so that peaks stay."""
    pairs = (samples[first : first + 2] for first in range(0, len(samples), 2))
    return [max(pair, key=lambda sample: sample.bytes) for pair in pairs]
