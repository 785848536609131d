"""What the pages of detection and of segmentation have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.labels import Split
from vision_longformer.reports.charts import Chart, Colour
from vision_longformer.reports.run import Run
from vision_longformer.utils.words import counted

COLOURS: tuple[Colour, ...] = ("blue", "orange", "green", "purple", "gray")
PART = "loss_"


def dense_contents(run: Run, split: Split, classes: Sequence[str]) -> dict[str, Any]:
    """Return what both pages show of a split."""
    sides = run.config.dense.sides
    return {
        "classes": classes,
        "images": len(split),
        "place": split.file if isinstance(split, CocoSplit) else split.folder,
        "size": "at their own size" if sides is None else f"at a shorter side of {sides[-1]} pixels",
    }


def dense_charts(run: Run, measures: dict[str, list[tuple[str, str]]], *, best: str) -> list[Chart]:
    """Return how a run went.

    Args:
        run: The run.
        measures: The charts of the validation by title, their lines as (name in metrics.jsonl, name for people).
        best: The measure that chose the best epoch, in metrics.jsonl's words.
    """
    parts = sorted({name for line in run.steps for name in line if name.startswith(PART)})
    of_parts = [
        run.curve(name, name.removeprefix(PART).replace("_", " "), colour, with_band=False)
        for name, colour in zip(parts, COLOURS, strict=False)
    ]
    charts = [
        run.chart("Loss", "sum of its parts", run.curve("loss")),
        run.chart("Parts of the loss", "", *of_parts, from_zero=True),
    ]
    for title, names in measures.items():
        lines = [
            run.curve(name, words, colour, with_band=False)
            for (name, words), colour in zip(names, COLOURS, strict=False)
        ]
        ring = best if best in dict(names) else None
        charts.append(run.chart(title, "validation", *lines, ring=ring, from_zero=True, highest=1.0))
    return charts


def examples_chosen(even: Sequence[int], worst: Sequence[int], *, by: str) -> str:
    """Return how images were chosen: some at even distances in the split, and the worst of the others."""
    chosen = f"The first {counted(len(even), 'image')} lie at even distances in the split"
    return f"{chosen}; the other {len(worst)} have the lowest {by} of all that are left." if worst else f"{chosen}."


def table_notes(classes: int, shown: int, defined: int, *, why: str) -> str:
    """Return what a table of classes leaves out: some of many, and those that have no value for a reason."""
    notes = []
    if shown < defined:
        notes.append(f"{counted(defined - shown, 'better class')} left out.")
    if defined < classes:
        notes.append(f"{counted(classes - defined, 'class')} {why} left out.")
    return " ".join(notes)
