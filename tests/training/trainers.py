"""`vil train` in processes of its own that cost no start: forks of one that has imported everything and run nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from training.cases import make_images, recipe
from vil import main
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.recipes import write_recipe


class Place:
    """A folder with a data set and a recipe; runs are folders in it."""

    def __init__(self, folder: Path, config: TrainConfig | None = None) -> None:
        self.folder = folder
        self.data = make_images(folder / "data")
        self.recipe = folder / "recipe.yaml"
        self.recipe.write_text(write_recipe(config or recipe()))

    def arguments(self, run: str, *options: str) -> list[str]:
        """Return the command line of `vil train` for a run."""
        return [
            "train",
            f"--recipe={self.recipe}",
            f"--data={self.data}",
            f"--output={self.folder / run}",
            *options,
        ]

    def start(self, run: str, *options: str, prepare: Callable[[], object] = lambda: None) -> Trainer:
        """Start `vil train`, in a process group of its own, which runs `prepare` first."""
        log = self.folder / f"{run}.log"
        sys.stdout.flush()
        process = os.fork()
        if process == 0:
            code = 99
            try:
                os.setpgid(0, 0)
                descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(descriptor, 1)
                os.dup2(descriptor, 2)
                prepare()
                code = main(self.arguments(run, *options))
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        return Trainer(process, log)


class Trainer:
    """A process that trains."""

    def __init__(self, process: int, log: Path) -> None:
        self.process, self.log = process, log
        self.code: int | None = None

    def has_ended(self) -> bool:
        """Tell whether it has ended, by itself or not."""
        if self.code is None:
            ended, status = os.waitpid(self.process, os.WNOHANG)
            if ended:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def wait(self, *, seconds: float = 120) -> int:
        """Wait for its end, and return its exit code; minus a signal's number if that ended it."""
        limit = time.monotonic() + seconds
        while not self.has_ended():
            if time.monotonic() > limit:
                self.kill()
                raise TimeoutError(f"no end after {seconds} s:\n{self.log.read_text()}")
            time.sleep(0.002)
        assert self.code is not None
        return self.code

    def kill(self, number: int = signal.SIGKILL, *, group: bool = False) -> None:
        """Send it, or all processes of its group, a signal."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.process, number)


def wait_for(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait until something holds."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError("it did not come about")
        time.sleep(0.001)
