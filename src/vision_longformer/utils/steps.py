"""Long work that says how far it is: generators that yield `Progress` and return a result."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Progress(NamedTuple):
    """How far some work is.

    Attributes:
        what: Is done, after the two numbers: "images checked".
        done: How much of it.
        total: How much there is.
    """

    what: str
    done: int
    total: int


Steps = Generator[Progress, None, Result]


def in_threads(what: str, items: Sequence[Item], function: Callable[[Item], Result]) -> Steps[list[Result]]:
    """Call a function with each of many items, as many at once as there are processors, and return the results.

    Functions that read files wait for disks and for decoders, which let other threads go on.
    """
    results = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        try:
            for result in threads.map(function, items):
                results.append(result)
                yield Progress(what, len(results), len(items))
        finally:  # whoever stops listening, or an error, need not wait for the rest
            threads.shutdown(wait=False, cancel_futures=True)
    return results


def finish(steps: Steps[Result]) -> Result:
    """Do the work without telling anybody how far it is."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
