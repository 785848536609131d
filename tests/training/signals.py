"""Run by test_signals: stops `vil train` in each of its phases, continues it, and prints a JSON line for each.

Two runs are killed at last, see kill.py.

python -m training.signals FOLDER
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from training.cases import metrics, outcome, recipe
from training.kill import kill_and_compare
from training.trainers import Place, wait_for
from vision_longformer.training import trainer
from vision_longformer.training.tasks import classification
from vision_longformer.utils import tensor_files

LONG = 0.3  # seconds that a phase is made to take


def slowed(module: Any, name: str, marker: Path, *, seconds: float = LONG) -> Callable[[], None]:
    """Return what makes the first call of a function tell that it has begun, and take `seconds`."""

    def patch() -> None:
        original = getattr(module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if not marker.exists():
                marker.touch()
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    time.sleep(0.01)
            return original(*arguments, **options)

        setattr(module, name, call)

    return patch


PHASES: dict[str, tuple[Any, str]] = {
    "reading data": (classification, "read_split"),
    "building the model": (classification, "build_model"),
    "a step": (trainer._Trainer, "_step"),
    "evaluating": (classification, "evaluate"),
    "saving": (tensor_files, "write_tensors"),
}


def stop(place: Place, phase: str, number: int, *, group: bool = False, workers: int = 0) -> dict[str, Any]:
    """Stop a run in a phase with a signal, continue it, and say what came of it."""
    run = f"{phase} {number} {group}".replace(" ", "-")
    module, name = PHASES[phase]
    marker = place.folder / f"{run}.marker"
    stopped = place.start(run, f"--compute.workers={workers}", prepare=slowed(module, name, marker))
    wait_for(marker.exists)
    time.sleep(LONG / 3)
    began = time.monotonic()
    stopped.kill(number, group=group)
    code = stopped.wait()
    seconds = time.monotonic() - began
    said = stopped.log.read_text()
    continued = place.start(run)
    return {
        "phase": phase,
        "signal": number,
        "code": code,
        "seconds": seconds,
        "said": said,
        "code of continuing": continued.wait(),
        "same": outcome(place.folder / run) == outcome(place.folder / "whole"),
        "same metrics": metrics(place.folder / run) == metrics(place.folder / "whole"),
    }


def second_trainer(place: Place) -> dict[str, Any]:
    """Start a trainer in the folder of one that is at work; then one where a killed one's readers live on."""
    marker = place.folder / "two.marker"
    first = place.start("two", "--compute.workers=1", prepare=slowed(trainer._Trainer, "_step", marker, seconds=60))
    wait_for(marker.exists)
    second = place.start("two")
    code = second.wait()
    said = second.log.read_text()
    first.kill()
    first.wait()
    at_once = place.start("two")
    return {"code": code, "said": said, "at once after the first was killed": at_once.wait()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    here = Place(Path(sys.argv[1]), recipe(schedule={"epochs": 1}))
    whole = here.start("whole")
    assert whole.wait() == 0, whole.log.read_text()
    for each in PHASES:
        print(json.dumps(stop(here, each, signal.SIGTERM)), flush=True)
    print(json.dumps(stop(here, "a step", signal.SIGINT)), flush=True)
    print(json.dumps(stop(here, "a step", signal.SIGTERM, group=True, workers=1)), flush=True)
    print(json.dumps(second_trainer(here)), flush=True)
    kill_and_compare(here, kills=2, seed=0)
