"""A run's folder: what it holds, and that only one trainer works in it.

recipe.yaml          the full configuration
run.json             data, versions, seed, machine
last.safetensors     checkpoint to continue from
best.safetensors     weights of the best evaluation, for `vil evaluate` and `vil predict`
metrics.jsonl        one JSON object a line
report.html          at the end
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vision_longformer.training.checkpoints import Progress
from vision_longformer.training.config import TrainConfig, read, walk
from vision_longformer.training.recipes import build, read_recipe
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.locks import Lock, LockedError

# Options that may change when a run is continued, as they do not change its weights.
MAY_CHANGE = ("compute.workers", "input.check", "distillation.cache")
# Options whose default has changed: (option, in runs of before, now), where both do the same to such a run.
SAME_AS_BEFORE = {("dense.labels", "coco", "auto")}


class RunFolder:
    """The files of a run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.yaml"
        self.about = self.path / "run.json"
        self.last = self.path / "last.safetensors"
        self.best = self.path / "best.safetensors"
        self.metrics = self.path / "metrics.jsonl"
        self.report = self.path / "report.html"
        self.tensorboard = self.path / "tensorboard"
        self._lock: Lock | None = None
        self._made: list[Path] = []  # by `lock`: the lock, then folders, the innermost first

    def lock(self) -> None:
        """Keep other trainers out until this process ends, however it ends.

        Raises:
            ValueError: Another trainer works here.
            OSError: The folder cannot be made or written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: is a file; give a folder for the run")
        file = self.path / ".lock"
        self._made = [path for path in (file, self.path, *self.path.parents) if not path.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        file.touch()
        try:
            self._lock = Lock(file)
        except (LockedError, FileNotFoundError) as error:  # which another trainer, refused, has just removed
            raise ValueError(
                f"{self.path}: another trainer works in this folder; wait for it, stop it, or give another --output"
            ) from error

    def unlock(self) -> None:
        """Let others in."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def forget(self) -> None:
        """Remove what `lock` made, of a run that was refused before it began; what holds something else stays."""
        if self._lock is None:  # another trainer's, or another process's
            return
        for path in self._made:
            try:
                path.rmdir() if path.is_dir() else path.unlink()
            except OSError:
                return
        self._made = []

    def write_text(self, path: Path, text: str) -> None:
        """Write a small file whole."""
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def write_about(self, about: dict[str, Any]) -> None:
        """Write run.json."""
        self.write_text(self.about, json.dumps(about, indent=2) + "\n")

    def refuse_other(self, config: TrainConfig) -> None:
        """Make sure that the run here was begun with this configuration.

        Raises:
            ValueError: It was not; names the option.
        """
        begun = build(read_recipe(self.recipe))
        for path, _, _, value, _ in walk(config):
            before = read(begun, path)
            if before == value or path in MAY_CHANGE or path.startswith("logging."):
                continue
            if not isinstance(value, str) or (path, before, value) not in SAME_AS_BEFORE:
                raise ValueError(
                    f"{self.path}: holds a run that was begun with {path}={before!r}, not {value!r}: "
                    "repeat that to continue it, or give another --output"
                )

    def append_metrics(self, values: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl; a line that a crash cut short is left out."""
        if not self.metrics.exists():
            return []
        lines = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return lines

    def forget_metrics_after(self, progress: Progress) -> None:
        """Drop lines about what came after a checkpoint, which a continued run does again."""
        evaluations = progress.evaluated_epochs
        kept = [
            line
            for line in self.read_metrics()
            if (line["epoch"] <= evaluations if _is_of_evaluation(line) else line["step"] <= progress.step)
        ]
        if self.metrics.exists():
            self.write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))


def _is_of_evaluation(line: dict[str, Any]) -> bool:
    return any(name.startswith("val_") for name in line)
