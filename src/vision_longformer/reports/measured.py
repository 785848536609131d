"""What pages of measurements have in common: tables that the terminal shows too, figures as SVG files, and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vision_longformer.reports.charts import Chart, Colour, Place, Series, range_of
from vision_longformer.reports.pages import write_page
from vision_longformer.utils.atomic_files import replacing

COLOURS: tuple[Colour, ...] = ("ink", "orange", "blue", "green", "purple", "amber", "sky")


@dataclass(frozen=True)
class Grid:
    """A table as text.

    Attributes:
        title: What it shows.
        header: Of its columns, the first of which holds names.
        rows: Cells.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def for_terminal(self) -> Table:
        """Lay it out for a terminal."""
        table = Table(title=self.title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title_justify="left")
        for number, heading in enumerate(self.header):
            table.add_column(heading, no_wrap=True, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table


@dataclass(frozen=True)
class Figure:
    """Charts side by side with one legend, which are a file too.

    Attributes:
        name: Of the file.
        caption: How to read it.
        charts: From left to right.
    """

    name: str
    caption: str
    charts: Sequence[Chart]

    @property
    def series(self) -> list[Series]:
        """The lines of the legend: each label once."""
        return list({series.label: series for chart in self.charts for series in chart.series}.values())


def line(label: str, points: Sequence[Place], *, number: int, marker: str, dashed: bool, joined: bool = True) -> Series:
    """Return measured values as a line.

    Args:
        label: For the legend.
        points: The values.
        number: That gives the line one of `COLOURS`.
        marker: Of its points.
        dashed: Whether it is dashed.
        joined: Whether there is a line at all.
    """
    colour, stroke = COLOURS[number % len(COLOURS)], "dashed" if dashed else "solid"
    return Series(label, colour, [points] if joined else [], points, stroke=stroke, marker=marker, marked=True)  # type: ignore[arg-type]


def panel(
    title: str, unit: str, series: Sequence[Series], *, x_name: str, ticks: Sequence[tuple[float, str]] = ()
) -> Chart:
    """Return a chart whose axes are logarithmic; without `ticks`, which tell sizes, the vertical one is not."""
    log = bool(ticks)
    xs = [value for value, _ in ticks] or [x for own in series for x, _ in own.marks]
    ends = min(xs, default=1.0) / 1.15, max(xs, default=1.0) * 1.15
    y = range_of(series, log=log)
    axes: dict[str, Any] = {"log": "xy", "kind": "panel"} if log else {"log": "x", "kind": "small"}
    return Chart(title, unit, series, ends, y, x_name=x_name, x_ticks=ticks, **axes)


@dataclass(frozen=True)
class Report:
    """What was measured, for a terminal, a page, and other programs.

    Attributes:
        title: What was measured.
        facts: How and on what, by name.
        figures: The figures.
        grids: The tables of the page.
        narrow_grids: Those of a terminal.
        guides: How to read them, a sentence or a few each.
        lists: What else the page tells, by heading.
        notes: What else a terminal tells.
        values: Everything, as JSON can store it.
    """

    title: str
    facts: Mapping[str, str]
    figures: Sequence[Figure]
    grids: Sequence[Grid]
    narrow_grids: Sequence[Grid]
    guides: Sequence[str]
    lists: Mapping[str, Sequence[str]]
    notes: Sequence[str]
    values: Mapping[str, Any]

    def write(self, output: Path, name: str) -> Path:
        """Write the values as JSON, the figures as SVG, and `index.html`, which shows them and needs no other file.

        Args:
            output: Folder.
            name: Of the file of values.

        Returns:
            The page.
        """
        with replacing(output / name) as temporary:
            temporary.write_text(json.dumps(self.values, indent=2) + "\n", encoding="utf-8")
        for figure in self.figures:
            write_page(output / figure.name, "figure.svg", {"figure": figure})
        write_page(output / "index.html", "measured.html", vars(self))
        return output / "index.html"

    def for_terminal(self) -> Group:
        """Lay out tables, how to read them, and notes for a terminal."""
        parts: list[Table | Text] = [grid.for_terminal() for grid in self.narrow_grids]
        parts += [Text(sentence) for sentence in self.guides]
        parts += [Text(f"Note: {note}.".replace("..", ".")) for note in self.notes]
        return Group(*parts)


def describe(machine: Mapping[str, Any], *, date: str, command: str) -> dict[str, str]:
    """Return what a page says of where and how something was measured."""
    return {
        "Machine": ", ".join((machine["processor"], machine["capability"], f"{machine['threads']} threads")),
        "Software": f"torch {machine['torch']}, vision-longformer {machine['vision_longformer']}",
        "Date": date,
        "Command": command,
    }
