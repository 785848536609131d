"""What a run tells of itself while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Literal

from vision_longformer.utils.steps import Steps


@dataclass(frozen=True)
class Event:
    """What happened, for progress bars and logs.

    Attributes:
        kind: "preparing", "begun", "continued", "remark", "step", "evaluating", "evaluated", "saved", "stopped",
            "result" or "finished".
        step: Steps taken so far.
        values: Numbers and texts that belong to it. The loss of a "step" is of the last one that was read, which on
            GPUs are only some (see `StepLosses`). Those of "result" are the "result" of the best weights, as the
            task's evaluation gives it, and the "progress" of the run: what a page about them needs.
    """

    kind: Literal[
        "preparing", "begun", "continued", "remark", "step", "evaluating", "evaluated", "saved", "stopped", "result",
        "finished",
    ]  # fmt: skip
    step: int
    values: dict[str, Any] = field(default_factory=dict)


def preparing(steps: Steps[None], asked_to_stop: Callable[[], bool]) -> Generator[Event, None, bool]:
    """Do what comes before the first step, and return whether it was stopped."""
    for progress in steps:
        yield Event("preparing", 0, progress._asdict())
        if asked_to_stop():
            yield Event("stopped", 0)
            return True
    return False
