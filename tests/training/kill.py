"""Kill `vil train` at random moments, continue, and compare what it ends with to an uninterrupted run.

    cd tests && python -m training.kill --kills 20

Each kill is a SIGKILL, which no process can prepare for; every second one waits until a checkpoint is being written.
The run saves after every step. Everything random is on: see `training.cases.recipe`. Trainers are forks of this
process, which saves the seconds of importing PyTorch. Exits with 1 if any run ended otherwise.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import torch

from training.cases import metrics, outcome
from training.trainers import Place, Trainer, wait_for

SAVE_AFTER_EVERY_STEP = "--logging.checkpoint_minutes=1e-9"


def run_whole(place: Place, run: str, *options: str) -> None:
    """Train, or continue, to the end."""
    trainer = place.start(run, *options)
    if trainer.wait() != 0:
        raise RuntimeError(trainer.log.read_text())


def kill_once(place: Place, run: str, moment: float, *, while_saving: bool, workers: int) -> tuple[bool, bool]:
    """Start a run, and kill it after `moment` seconds; return whether it was killed, and while it was saving."""
    folder = place.folder / run
    began = time.monotonic()
    trainer = place.start(run, SAVE_AFTER_EVERY_STEP, f"--compute.workers={workers}")
    wait_for(lambda: time.monotonic() - began > moment)
    if while_saving:
        wait_for(lambda: trainer.has_ended() or half_written(folder))
    _kill(trainer)
    return trainer.wait() == -9, half_written(folder)


def half_written(folder: Path) -> bool:
    """Tell whether a file of a run is being written, or was when its writer died."""
    return any(folder.glob(".*.tmp"))


def _kill(trainer: Trainer) -> None:
    if not trainer.has_ended():
        trainer.kill()


def kill_and_compare(place: Place, *, kills: int, seed: int) -> bool:
    """Kill runs, print what they ended with, and return whether all ended alike."""
    moments = random.Random(seed)
    began = time.monotonic()
    run_whole(place, "uninterrupted", SAVE_AFTER_EVERY_STEP)
    duration = time.monotonic() - began
    expected, lines = outcome(place.folder / "uninterrupted"), metrics(place.folder / "uninterrupted")
    same = saving = number = 0
    while number < kills:
        run = f"killed-{number}"
        moment = moments.uniform(0.02, 0.9) * duration
        was_killed, was_saving = kill_once(
            place, run, moment, while_saving=number % 2 == 1, workers=(number + 1) % 4 // 2
        )
        at = len(metrics_so_far(place.folder / run))
        run_whole(place, run)
        if not was_killed:  # it had ended before
            (place.folder / run).rename(place.folder / f"too-late-{time.monotonic_ns()}")
            continue
        number += 1
        equal = outcome(place.folder / run) == expected and metrics(place.folder / run) == lines
        same, saving = same + equal, saving + was_saving
        where = "while writing a file" if was_saving else f"after {moment:.2f} s"
        print(f"{run}: killed {where}, {at} lines of metrics: {'same' if equal else 'DIFFERENT'}", flush=True)
    print(f"{same} of {kills} bit-identical ({saving} killed while a file was being written)", flush=True)
    return same == kills


def metrics_so_far(folder: Path) -> list[str]:
    """Return the lines of metrics that a killed run left."""
    path = folder / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description="Kill `vil train` at random moments, and compare how it ends.")
    parser.add_argument("--kills", type=int, default=20, help="how many runs to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return int(not kill_and_compare(Place(Path(folder)), kills=arguments.kills, seed=arguments.seed))


if __name__ == "__main__":
    sys.exit(main())
