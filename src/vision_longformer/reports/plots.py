"""Line plots for reports, drawn with matplotlib, which is loaded only when one is drawn."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from vision_longformer.prediction.colours import OKABE_ITO

# Black, and Okabe and Ito's colours but for their yellow, which is too pale for lines on white.
COLOURS = ("#000000", *(f"#{r:02X}{g:02X}{b:02X}" for r, g, b in (OKABE_ITO[n] for n in (5, 6, 3, 4, 0, 1))))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h", "p")
DPI = 150
WIDTH = 12.0  # inches: 1800 pixels


@dataclass(frozen=True)
class Line:
    """A line of a panel. Lines of one label look alike in all panels and share an entry of the legend.

    Attributes:
        label: Its name.
        x: Positions, as are `y`.
        y: Values.
        colour: As matplotlib understands it.
        marker: As matplotlib calls it.
        dashed: Whether it is dashed.
        joined: Whether its points are joined.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str = COLOURS[0]
    marker: str = MARKERS[0]
    dashed: bool = False
    joined: bool = True


@dataclass(frozen=True)
class Panel:
    """Axes with lines, both logarithmic unless told otherwise.

    Attributes:
        title: What it shows.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        lines: What is drawn; those without points appear in the legend alone.
        ticks: Values marked on the horizontal axis; by default round ones.
        tick_names: What stands at `ticks`, by default their values.
        linear: Whether the vertical axis is linear.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    ticks: Sequence[float] = ()
    tick_names: Sequence[str] = ()
    linear: bool = False


def draw_panels(panels: Sequence[Panel], *, height: float = 7.0) -> bytes:
    """Draw panels side by side, with one legend below them.

    Args:
        panels: From left to right.
        height: In inches, the legend included; the width is `WIDTH`.

    Returns:
        A PNG file of `DPI` dots an inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    handles: dict[str, Any] = {}
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, panel, handles)
    if handles:
        legend: dict[str, Any] = {
            "loc": "outside lower center",
            "ncols": _legend_columns(handles),
            "fontsize": 12,
            "frameon": False,
        }
        figure.legend(handles.values(), handles.keys(), handlelength=3.2, **legend)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def legend_rows(panels: Sequence[Panel]) -> int:
    """Return how many rows the legend of these panels has."""
    labels = {line.label for panel in panels for line in panel.lines}
    return -(-len(labels) // _legend_columns(labels)) if labels else 0


def _legend_columns(labels: Collection[str]) -> int:
    """Return how many columns of the longest label fit below the panels, at most four."""
    inches = 0.8 + 0.095 * max(map(len, labels))
    return max(1, min(4, len(labels), int(WIDTH / inches)))


def _draw(axes: Any, panel: Panel, handles: dict[str, Any]) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    for line in panel.lines:
        (handle,) = axes.plot(
            line.x,
            line.y,
            color=line.colour,
            marker=line.marker,
            markersize=7,
            markerfacecolor="white" if line.dashed else line.colour,
            linewidth=1.8,
            linestyle=((0, (5, 2)) if line.dashed else "solid") if line.joined else "none",
        )
        handles.setdefault(line.label, handle)
    axes.set_xscale("log")
    axes.set_yscale("linear" if panel.linear else "log")
    if panel.ticks:
        axes.set_xticks(panel.ticks, labels=panel.tick_names or [f"{tick:g}" for tick in panel.ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        _plain_ticks(axes.xaxis)
    if not any(map(len, (line.y for line in panel.lines))):
        axes.set_ylim(1, 10)  # an axis has to end somewhere
        axes.text(0.5, 0.5, "nothing was measured", transform=axes.transAxes, ha="center", fontsize=13)
    low, high = axes.get_ylim()
    if not panel.linear and high / low < 10:  # its powers alone would leave the axis almost without numbers
        _plain_ticks(axes.yaxis)
    elif not panel.linear:
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(panel.title, fontsize=15, pad=10)
    axes.set_xlabel(panel.x_label, fontsize=13)
    axes.set_ylabel(panel.y_label, fontsize=13)
    axes.tick_params(labelsize=12)
    axes.grid(True, which="major", color="#d5d8dc", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _plain_ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if high / low < 10 else (1, 3)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
