"""What the pages of detection and of segmentation have in common."""

from __future__ import annotations

from collections.abc import Sequence

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.semantic import SemanticSplit
from vision_longformer.reports.charts import Chart, Colour
from vision_longformer.reports.run import Run
from vision_longformer.utils.words import counted

COLOURS: tuple[Colour, ...] = ("blue", "orange", "green", "purple", "gray")
PART = "loss_"
CHOSEN_ON_THESE = "The best epoch was chosen on these same images, which flatters the numbers a little."


def place_of(split: CocoSplit | SemanticSplit) -> str:
    """Return where a split lies."""
    return str(split.file if isinstance(split, CocoSplit) else split.folder)


def size_of(run: Run) -> str:
    """Return at what size images were evaluated."""
    sides = run.config.dense.sides
    return "at their own size" if sides is None else f"at a shorter side of {sides[-1]} pixels"


def dense_charts(run: Run, measures: Sequence[tuple[str, Sequence[tuple[str, str]]]], *, best: str) -> list[Chart]:
    """Return how a run went.

    Args:
        run: The run.
        measures: Title of each chart of the validation, and its lines as (name in metrics.jsonl, name for people).
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
    for title, lines in measures:
        of_measures = [
            run.curve(name, words, colour, with_band=False)
            for (name, words), colour in zip(lines, COLOURS, strict=False)
        ]
        ring = best if best in [name for name, _ in lines] else None
        charts.append(run.chart(title, "validation", *of_measures, ring=ring, from_zero=True, highest=1.0))
    return charts


def table_notes(classes: int, shown: int, defined: int, *, why: str) -> str:
    """Return what a table of classes leaves out: some of many, and those that have no value for a reason."""
    notes = []
    if shown < defined:
        notes.append(f"{counted(defined - shown, 'better class')} left out.")
    if defined < classes:
        notes.append(f"{counted(classes - defined, 'class')} {why} left out.")
    return " ".join(notes)


def left_out(wanted: int, shown: int) -> str:
    """Return a note on chosen images that could not be read any more."""
    return f"{counted(wanted - shown, 'image')} could not be read any more." if shown < wanted else ""
