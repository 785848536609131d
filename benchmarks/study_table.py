"""The table of the study's finished runs, as Markdown."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study_models import MODELS, SIZE, multiply_adds, parameter_count

from vision_longformer.evaluation.confusions import wilson_interval

HEADER = (
    "model",
    "M parameters",
    "M multiply-adds",
    "s a step",
    "images/s",
    "top-1 by seed, %",
    "mean",
    "95% interval",
    "beside `vil`",
)
NOTE = (
    "Top-1 of the last epoch on {images} validation images, of which nothing was chosen by them. The interval is "
    "Wilson's for the answers of all seeds together. The seeds share the validation images, so it is too narrow "
    "rather than too wide; and where it overlaps that of `vil`, the two are not ranked.{steps}"
)
STEPS_NOTE = (
    " Parameters and multiply-adds are at {size}×{size}. Seconds are those of a training step of {batch_size} images, "
    "the median of several measured in turn in one process ({machine})."
)


@dataclass(frozen=True)
class Finished:
    """The finished runs of a model.

    Attributes:
        top1: In percent, of the last epoch of each run, by seed.
        images: Validation images of each run.
    """

    top1: tuple[float, ...]
    images: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the share of right answers, those of all runs together."""
        correct = sum(round(value / 100 * self.images) for value in self.top1)
        return wilson_interval(correct, self.images * len(self.top1))


def is_finished(folder: Path) -> bool:
    """Return whether a run has come to its end."""
    return (folder / "report.html").exists()


def markdown(output: Path) -> str:
    """Return a row for each model that has a finished run, and what the columns are."""
    results = {name: found for name in MODELS if (found := _finished(output, name)) is not None}
    if not results:
        return "No run is finished.\n"
    steps_file = output / "steps.json"
    steps = json.loads(steps_file.read_text(encoding="utf-8")) if steps_file.exists() else None
    rows = [HEADER, ("---",) * len(HEADER), *(_row(name, results, steps) for name in results)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    about_steps = "" if steps is None else STEPS_NOTE.format(size=SIZE, **steps)
    images = next(iter(results.values())).images
    return "\n".join([*lines, "", NOTE.format(images=images, steps=about_steps), ""])


def _finished(output: Path, name: str) -> Finished | None:
    numbered = ((path.name.removeprefix(f"{name}-"), path) for path in output.glob(f"{name}-*"))
    folders = [path for _, path in sorted((int(seed), path) for seed, path in numbered if seed.isdigit())]
    folders = [folder for folder in folders if is_finished(folder)]
    if not folders:
        return None
    images = json.loads((folders[0] / "run.json").read_text(encoding="utf-8"))["validation_images"]
    return Finished(tuple(_last_top1(folder) for folder in folders), images)


def _last_top1(folder: Path) -> float:
    """Return the accuracy of the last epoch, not of the best one: nothing is chosen on the images reported."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return float(next(line["val_top1"] for line in reversed(lines) if "val_top1" in line))


def _row(name: str, results: dict[str, Finished], steps: dict[str, Any] | None) -> tuple[str, ...]:
    result, model = results[name], MODELS[name].build()
    low, high = result.interval
    seconds = None if steps is None else steps["seconds"][name]
    return (
        f"`{name}`",
        f"{parameter_count(model) / 1e6:.2f}",
        f"{multiply_adds(model) / 1e6:.1f}",
        "" if seconds is None else f"{seconds:.3f}",
        "" if seconds is None or steps is None else f"{steps['batch_size'] / seconds:.0f}",
        ", ".join(f"{value:.1f}" for value in result.top1),
        f"{statistics.mean(result.top1):.1f}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        _beside(result, results.get("vil")) if name != "vil" else "",
    )


def _beside(result: Finished, base: Finished | None) -> str:
    """Rank a result only where the intervals are apart."""
    if base is None:
        return ""
    if result.interval[0] > base.interval[1]:
        return "above"
    return "below" if result.interval[1] < base.interval[0] else "not told apart"
