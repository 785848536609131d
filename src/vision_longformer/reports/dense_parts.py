"""What the pages of detection and of segmentation have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.semantic import SemanticSplit
from vision_longformer.reports.curves import Chart, Colour, Point, Series
from vision_longformer.reports.matrix import escape
from vision_longformer.reports.training_parts import Course, counted, curves, trained_for
from vision_longformer.training.checkpoints import Progress
from vision_longformer.training.config import TrainConfig

MAX_ROWS = 100  # of a table of classes
COLOURS: tuple[Colour, ...] = ("blue", "orange", "green", "purple", "gray")
PART = "loss_"


def lead(
    classes: Sequence[str], split: CocoSplit | SemanticSplit, config: TrainConfig, about: dict[str, Any], *, on: str
) -> str:
    """Return what was trained and evaluated, in a sentence; `on` says what is on the images."""
    sides = config.dense.sides
    size = "at their own size" if sides is None else f"at a shorter side of {sides[-1]} pixels"
    place = split.file if isinstance(split, CocoSplit) else split.folder
    return (
        f"{counted(len(classes), 'class')}, {trained_for(config, about)}, evaluated on "
        f"{counted(len(split), 'image')}{on} of <b>{escape(str(place))}</b> {size}."
    )


def dense_curves(
    course: Course,
    measures: Sequence[tuple[str, Sequence[tuple[str, str]]]],
    config: TrainConfig,
    progress: Progress,
    *,
    best: str,
) -> str:
    """Return the charts of a run.

    Args:
        course: What they show.
        measures: Title of each chart of the validation, and its lines as (name in metrics.jsonl, name for people).
        config: Of the run.
        progress: At its end.
        best: The measure that chose the best epoch, in metrics.jsonl's words.
    """
    ring = course.best(best, progress)
    parts = sorted({name for line in course.steps for name in line if name.startswith(PART)})
    charts = [
        Chart("Loss", "sum of its parts", (Series("", "blue", course.step_points("loss")[0]),)),
        Chart(
            "Parts of the loss",
            "",
            [
                Series(name.removeprefix(PART).replace("_", " "), colour, _without_band(course.step_points(name)[0]))
                for name, colour in zip(parts, COLOURS, strict=False)
            ],
            from_zero=True,
        ),
    ]
    for title, lines in measures:
        series = [
            Series(words, colour, _without_band(course.evaluation_points(name)[0]), marked=True)
            for (name, words), colour in zip(lines, COLOURS, strict=False)
        ]
        own = ring if best in [name for name, _ in lines] else None
        charts.append(Chart(title, "validation", series, ring=own, from_zero=True, highest=1.0))
    remark = "The loss is that of single steps, of augmented images."
    return curves(course, charts, config, remark=remark, ring=ring is not None)


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
    return f"{counted(wanted - shown, 'image')} could not be read any more. " if shown < wanted else ""


def _without_band(points: Sequence[Point]) -> list[Point]:
    """Return the means alone: bands of several lines would hide each other."""
    return [Point(point.x, point.y, point.y, point.y) for point in points]


DENSE_STYLE = """
.tiles { grid-template-columns: repeat(auto-fit, minmax(min(100%, 150px), 1fr)); }
.recalls { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr)); }
.recalls figure { padding: .6rem .7rem .2rem; }
.recalls figcaption { overflow-wrap: anywhere; }
.recall { max-width: 300px; margin: 0 auto; }
.examples h3 { margin: 1.6rem 0 .6rem; }
.shots { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
.shots figure, .panels figure { padding: .6rem; break-inside: avoid; }
.shots figcaption, .panels figcaption { margin-top: .4rem; overflow-wrap: anywhere; }
.shot { position: relative; margin: 0 auto; }
.shot img, .shot svg { display: block; width: 100%; height: 100%; }
.shot .layer, .shot svg { position: absolute; inset: 0; }
.shot rect { fill: none; pointer-events: all; stroke-width: 2.5; vector-effect: non-scaling-stroke; }
.shot rect.halo { stroke: #000; stroke-opacity: .55; stroke-width: 4.5; pointer-events: none; }
.shot .hit { stroke: #56b4e9; }
.shot .alarm { stroke: #ff8c1a; }
.shot .miss { stroke: #f7ec3f; stroke-dasharray: 7 4; }
.shot .truth { stroke: #fff; }
.shot .truth rect { stroke-width: 1.2; }
.shot .truth rect.halo { stroke-width: 2.4; }
.shot .quiet rect { stroke: none; }
.shot text { font-size: 14px; font-weight: 600; fill: #fff; stroke: #000; stroke-width: 3.5px; stroke-dasharray: none;
  stroke-linejoin: round; paint-order: stroke; pointer-events: none; }
.toggles { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; margin: 0 0 1rem; }
.toggles label { display: inline-flex; align-items: center; gap: .45em; cursor: pointer; }
.toggles i { width: 1.5em; height: 1.05em; border: 3px solid; border-radius: 2px; background: #6b6f75; }
.toggles .hit { border-color: #56b4e9; }
.toggles .alarm { border-color: #ff8c1a; }
.toggles .miss { border: 3px dashed #f7ec3f; }
.toggles .truth { border: 1.5px solid #fff; outline: 1px solid #6b6f75; }
.examples:has(.show-hit:not(:checked)) .shot .hit, .examples:has(.show-alarm:not(:checked)) .shot .alarm,
.examples:has(.show-miss:not(:checked)) .shot .miss, .examples:has(.show-truth:not(:checked)) .shot .truth,
.examples:has(.show-name:not(:checked)) .shot text { display: none; }
.panels { display: grid; gap: 1rem; }
.panels .row { display: grid; gap: .6rem; grid-template-columns: repeat(4, 1fr); }
.panels .row div { font-size: .875rem; color: var(--soft); }
.panels img { display: block; width: 100%; height: auto; }
.panels .flat { image-rendering: pixelated; }
.names { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: 0 0 1rem; font-size: .92rem; }
.names i { display: inline-block; width: 1.3em; height: .95em; margin-right: .45em; vertical-align: -.1em;
  border: 1px solid var(--line); }
@media (max-width: 640px) { .panels .row { grid-template-columns: repeat(2, 1fr); } }
@media print { .toggles { display: none; } }
"""
