"""What pages of measurements have in common: tables that the terminal shows too, figures as PNG files, and JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vision_longformer.reports.pages import write_page
from vision_longformer.reports.plots import Panel, draw_panels, legend_rows
from vision_longformer.utils.atomic_files import replacing


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
class Drawing:
    """A figure that is a PNG file too.

    Attributes:
        name: Of the file.
        caption: How to read it.
        panels: From left to right.
    """

    name: str
    caption: str
    panels: Sequence[Panel]

    def draw(self) -> bytes:
        """Return the file."""
        return draw_panels(self.panels, height=6.0 + 0.25 * legend_rows(self.panels))


@dataclass(frozen=True)
class MeasuredPage:
    """A page of measurements.

    Attributes:
        title: What was measured.
        facts: How and on what, by name.
        drawings: The figures.
        grids: The tables.
        guides: How to read them, a sentence or a few each.
        lists: What else is to be told, by heading.
    """

    title: str
    facts: Mapping[str, str]
    drawings: Sequence[Drawing]
    grids: Sequence[Grid]
    guides: Sequence[str]
    lists: Mapping[str, Sequence[str]]
    pictures: dict[str, bytes] = field(default_factory=dict)
    template = "measured.html"

    @property
    def figures(self) -> list[tuple[str, str]]:
        """Address and caption of each drawing."""
        encoded = [base64.b64encode(self.pictures[drawing.name]).decode() for drawing in self.drawings]
        return [(f"data:image/png;base64,{data}", d.caption) for data, d in zip(encoded, self.drawings, strict=True)]

    def write(self, output: Path) -> Path:
        """Write the figures as PNG, and `index.html`, which shows them and needs no other file.

        Returns:
            The page.
        """
        for drawing in self.drawings:
            self.pictures[drawing.name] = drawing.draw()
            with replacing(output / drawing.name) as temporary:
                temporary.write_bytes(self.pictures[drawing.name])
        target = output / "index.html"
        write_page(target, self)
        return target


def for_terminal(grids: Sequence[Grid], guides: Sequence[str], notes: Sequence[str]) -> Group:
    """Lay out tables, how to read them, and notes for a terminal."""
    parts: list[Table | Text] = [grid.for_terminal() for grid in grids]
    parts += [Text(sentence) for sentence in guides]
    parts += [Text(f"Note: {note}.".replace("..", ".")) for note in notes]
    return Group(*parts)


def describe_place(machine: Mapping[str, Any], *, date: str, command: str, **more: str) -> dict[str, str]:
    """Return what a page says of where and how it was measured; `more` stands after the machine."""
    return {
        "Machine": ", ".join((machine["processor"], machine["capability"], f"{machine['threads']} threads")),
        **{name.replace("_", " "): fact for name, fact in more.items()},
        "Software": f"torch {machine['torch']}, vision-longformer {machine['vision_longformer']}",
        "Date": date,
        "Command": command,
    }


def write_json(values: Mapping[str, Any], target: Path) -> None:
    """Write everything that was measured as JSON."""
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
