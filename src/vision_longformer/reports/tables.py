"""Tables of text that the terminal and a web page show alike, and what such a page is made of."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text


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


def terminal_table(grid: Grid) -> Table:
    """Lay out a grid for a terminal."""
    table = Table(title=grid.title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title_justify="left")
    for number, heading in enumerate(grid.header):
        table.add_column(heading, no_wrap=True, justify="right" if number else "left")
    for row in grid.rows:
        table.add_row(*map(Text, row))
    return table


def html_table(grid: Grid) -> str:
    """Lay out a grid for a page, under a heading."""
    header = "".join(f"<th>{html.escape(cell)}" for cell in grid.header)
    rows = "\n".join(
        f"<tr><th scope='row'>{html.escape(name)}" + "".join(f"<td>{html.escape(cell)}" for cell in cells)
        for name, *cells in grid.rows
    )
    return (
        f"<h2>{html.escape(grid.title)}</h2><div class='scroll'><table><thead><tr>{header}</thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def html_picture(data: bytes, caption: str) -> str:
    """Return a figure with a PNG file in it."""
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    caption = html.escape(caption)
    return f"<figure><img src='{uri}' alt='{caption}'><figcaption>{caption}</figcaption></figure>"


STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --ink: #1b1d21; --soft: #575d66; --line: #dfe1e5; }
@media (prefers-color-scheme: dark) { :root { --ground: #141619; --ink: #e8eaed; --soft: #a7adb6; --line: #33373d; } }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 2rem clamp(1rem, 3vw, 2.5rem) 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .7rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.5rem; margin: 0 0 2rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 0 0 2rem; background: #fff; border: 1px solid var(--line); border-radius: .5rem; overflow: hidden; }
img { display: block; width: 100%; height: auto; }
figcaption { padding: .5rem .75rem .65rem; font-size: .9em; color: #575d66; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem 0 .4rem 2rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
thead th { color: var(--soft); font-weight: 500; white-space: pre-line; vertical-align: bottom; }
th:first-child { text-align: left; padding-left: 0; }
th[scope=row] { font-weight: 500; }
.guide { max-width: 80ch; }
"""
