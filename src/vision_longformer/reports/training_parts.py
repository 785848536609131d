"""What the pages of all runs have in common: their frame, headline, charts, tables, recipe and words.

A page is a list of parts, each a piece of HTML. Texts given to the functions below are HTML already, unless they are
said to be names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vision_longformer.reports.curves import Chart, Colour, Point, Series, draw_chart, points_of
from vision_longformer.reports.matrix import escape, strength
from vision_longformer.reports.page_style import STYLE
from vision_longformer.training.checkpoints import Progress
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.recipes import write_recipe
from vision_longformer.training.run_folder import RunFolder

Lines = Sequence[dict[str, Any]]  # of metrics.jsonl


# --- frame ------------------------------------------------------------------------------------------------------


def page(title: str, parts: Iterable[str], *, style: str = "") -> str:
    """Return a whole page.

    Args:
        title: Name of what was trained.
        parts: In their order.
        style: Rules beside those of all pages.
    """
    head = _HEAD.format(title=escape(title), style=STYLE + style)
    return f"{head}{''.join(parts)}</main></body></html>\n"


def section(title: str, content: str) -> str:
    """Return a part with a heading."""
    return f"<section><h2>{title}</h2>{content}</section>\n"


def read_about(folder: RunFolder) -> dict[str, Any]:
    """Return what run.json says; nothing if it cannot be read: the page then leaves it out."""
    try:
        about = json.loads(folder.about.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


# --- headline ---------------------------------------------------------------------------------------------------


class Tile(NamedTuple):
    """A number with its name and a remark."""

    name: str
    value: str
    remark: str


def headline(lead: str, tiles: Iterable[Tile], guide: str) -> str:
    """Return the top of a page: a sentence, the main numbers, and how to take them."""
    shown = "".join(
        f"<div><dt>{tile.name}</dt><dd class='value'>{tile.value}</dd><dd>{tile.remark}</dd></div>" for tile in tiles
    )
    return f"<p class='lead'>{lead}</p><dl class='tiles'>{shown}</dl><p class='guide'>{guide}</p>\n"


def training_tiles(progress: Progress, about: dict[str, Any]) -> list[Tile]:
    """Return what the training took."""
    tiles = []
    if "parameters" in about:
        tiles.append(Tile("Parameters", f"{about['parameters'] / 1e6:,.2f} M", escape(_machine(about))))
    taken = f"{progress.step:,} steps, evaluations not counted"
    return [*tiles, Tile("Training time", duration(progress.seconds), taken)]


def trained_for(config: TrainConfig, about: dict[str, Any]) -> str:
    """Return how long and on how many images a model was trained."""
    on = f" on {counted(about['images'], 'image')}" if "images" in about else ""
    return f"trained for {counted(config.schedule.epochs, 'epoch')}{on}"


def _machine(about: dict[str, Any]) -> str:
    words = [f"on {about['device']}"] if "device" in about else []
    if about.get("device") == "cpu" and "threads" in about:
        words.append(counted(about["threads"], "thread"))
    if about.get("processes", 1) > 1:
        words.append(counted(about["processes"], "process"))
    return ", ".join(words)


# --- curves -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Course:
    """What was written while a run went on.

    Attributes:
        steps: Lines of training steps.
        evaluations: Lines of evaluations.
    """

    steps: Lines
    evaluations: Lines

    @classmethod
    def of(cls, metrics: Lines) -> Course:
        """Sort lines; of those that a continued run wrote twice, the later one counts."""
        once = {("loss" in line, line["step"]): line for line in metrics}
        lines = sorted(once.values(), key=lambda line: line["epoch"])
        return cls([line for line in lines if "loss" in line], [line for line in lines if "loss" not in line])

    def step_points(self, name: str) -> tuple[list[Point], int]:
        """Return a number of the steps by epoch; see `points_of`."""
        return _by_epoch(self.steps, name)

    def evaluation_points(self, name: str) -> tuple[list[Point], int]:
        """Return a number of the evaluations by epoch; see `points_of`."""
        return _by_epoch(self.evaluations, name)

    def best(self, name: str, progress: Progress) -> tuple[float, float] | None:
        """Return (epoch, value) of the best epoch; None if no line has it."""
        return next(
            (
                (line["epoch"], line[name])
                for line in self.evaluations
                if line["epoch"] == progress.best_epoch and line.get(name) is not None
            ),
            None,
        )


def _by_epoch(lines: Lines, name: str) -> tuple[list[Point], int]:
    return points_of((line["epoch"], line[name]) for line in lines if line.get(name) is not None)


def curves(course: Course, charts: Sequence[Chart], config: TrainConfig, *, remark: str, ring: bool) -> str:
    """Return the charts of a run, with those of the learning rate and the speed.

    Args:
        course: What they show.
        charts: Those without any point are left out.
        config: Of the run.
        remark: About them.
        ring: Whether the best epoch has one.
    """
    rate, group = course.step_points("learning_rate")
    speed, _ = course.step_points("images_per_second")
    common = (
        Chart("Learning rate", "largest of all parameters", (Series("", "blue", rate),), from_zero=True),
        Chart("Speed", "images a second", (Series("", "blue", speed),), from_zero=True),
    )
    drawn = "".join(
        figure(chart, epochs=config.schedule.epochs)
        for chart in (*charts, *common)
        if any(series.points for series in chart.series)
    )
    notes = [remark]
    if ring:
        notes.append("The ring marks the best epoch.")
    if not course.steps:
        notes.append("No training step was logged: logging.every_steps is larger than their number.")
    if group > 1:
        notes.append(f"Lines show means of {group} logged steps, bands the lowest and highest of them.")
    val_group = points_of((line["epoch"], 0.0) for line in course.evaluations)[1]
    if val_group > 1:
        notes.append(f"Of the many evaluations, means of {val_group} are shown.")
    return section("Course of the run", f"<div class='charts'>{drawn}</div>{small(' '.join(notes))}")


def figure(chart: Chart, *, epochs: int) -> str:
    """Return a chart with its title and legend."""
    named = [series for series in chart.series if series.label and series.points]
    legend = "".join(_key(series.colour, series.label, marked=series.marked) for series in named)
    return (
        f"<figure><figcaption><b>{chart.title}</b> <span>{chart.unit}</span><span class='legend'>{legend}</span>"
        f"</figcaption>{draw_chart(chart, epochs=epochs)}</figure>"
    )


def _key(colour: Colour, label: str, *, marked: bool) -> str:
    return f"<span class='entry'><span class='key {colour}{' marked' if marked else ''}'></span>{label}</span> "


# --- tables -----------------------------------------------------------------------------------------------------


class Column(NamedTuple):
    """The heading of a column, and whether its cells are text, at the left, or numbers, at the right."""

    heading: str
    text: bool = False


def table(columns: Sequence[Column], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; the first cell of a row is its heading."""
    opened = [" class='text'" if column.text else "" for column in columns]
    head = "".join(f"<th{kind}>{column.heading}" for kind, column in zip(opened, columns, strict=True))
    body = []
    for first, *rest in rows:
        cells = "".join(f"<td{kind}>{cell}" for kind, cell in zip(opened[1:], rest, strict=True))
        body.append(f"<tr><th scope='row'>{first}{cells}</tr>\n")
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"


def scale(end: str) -> Column:
    """Return the heading of a column of `bar`s from 0 to `end`."""
    return Column(f"<span class='ends'><span>0</span><span>{end}</span></span>", text=True)


def bar(low: float, high: float, mark: float) -> str:
    """Return a range and a mark between 0 and 1."""
    place = f"left:{low:.1%};width:{high - low:.1%}"
    return (
        f"<span class='track'><span class='range' style='{place}'></span>"
        f"<span class='mark' style='left:{mark:.1%}'></span></span>"
    )


def swatches() -> str:
    """Return the colours of a matrix for shares of 1, 5, 25 and 100%, right and wrong."""
    drawn = "".join(
        f"<span class='swatch {kind}' style='opacity:{strength(share):.2f}'></span>"
        for kind in ("right", "wrong")
        for share in (0.01, 0.05, 0.25, 1.0)
    )
    return f"<span class='scale'>{drawn}</span>"


# --- recipe -----------------------------------------------------------------------------------------------------


def recipe(config: TrainConfig, about: dict[str, Any]) -> str:
    """Return the configuration, the machine and the versions."""
    versions = about.get("versions", {})
    told = {key: value for key, value in about.items() if key not in ("classes", "versions")}
    rows = "".join(
        f"<tr><th scope='row'>{escape(str(key).replace('_', ' '))}<td class='text'>{escape(str(value))}</tr>"
        for key, value in [*told.items(), *versions.items()]
    )
    return (
        f"<section><details><summary>Recipe</summary><pre>{escape(write_recipe(config))}</pre></details>"
        f"<details><summary>Machine and versions</summary><div class='scroll'><table><tbody>{rows}</tbody></table>"
        "</div></details></section>\n"
    )


# --- words ------------------------------------------------------------------------------------------------------


def percent(count: int, total: int) -> str:
    """Return a share, with more digits where many were counted."""
    return f"{100 * count / total:.{decimals(total)}f}%"


def decimals(total: int) -> int:
    """Return how many decimals the percentage of so many has."""
    return 1 if total < 10_000 else 2


def counted(count: int, noun: str) -> str:
    """Return a number with its noun."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def duration(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def small(text: str) -> str:
    """Return a paragraph in small print; nothing for no text."""
    return f"<p class='small'>{text}</p>" if text else ""


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: training</title><style>{style}</style></head><body><main>
<h1>Training of {title}</h1>
"""
