"""Reading ahead: worker threads read what comes next while the model works on what has come."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")

MOST_WORKERS = 8


def default_workers() -> int:
    """Return how many threads read: as many as this process may use CPUs, up to `MOST_WORKERS`."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_WORKERS, available)


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Read], *, workers: int, ahead: int
) -> Generator[tuple[Item, Read]]:
    """Read items in threads, and yield each with what was read, in order.

    Close the generator to end the threads before all is read; what waits is then not read any more.

    Args:
        items: Taken one after the other, as they are needed.
        read: Called in a thread; what it raises is raised here, once it is the item's turn.
        workers: Threads.
        ahead: Items that are read, or being read, beside the one that was yielded last.
    """
    waiting: deque[tuple[Item, Future[Read]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="read") as pool, contextlib.ExitStack() as stack:
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        for item in items:
            waiting.append((item, pool.submit(read, item)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
                del future  # and what it holds
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
            del future
