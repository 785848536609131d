"""What `vil compare` shows: tables for the terminal, two figures and a web page, from what `comparison` measured."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vision_longformer.attention.ablations import MECHANISMS, PARTIAL, PublishedComparison, list_mechanisms
from vision_longformer.benchmarking.comparison import Row, exponents
from vision_longformer.reports.charts import MARKERS, Chart, Series
from vision_longformer.reports.measured import Figure, Grid, Report, describe, line, panel
from vision_longformer.utils.system_memory import gigabytes

FORMAT_VERSION = 1
PUBLISHED_MODEL = "small"  # the one that was published with each mechanism
EXPONENTS = {
    "attention_time": "attn\ntime",
    "time": "pass\ntime",
    "attention_multiply_adds": "attn\nMACs",
    "peak_memory": "peak\nmemory",
}
GUIDE = (
    "Inference on one random float32 image with random weights. Time is the median of the timed passes (lowest to "
    "highest). Memory is the peak resident memory of a pass above that of the loaded, warmed-up model, in a process of "
    "its own. MACs are multiply-adds, counted; attn is attention proper, without its linear layers and convolutions."
)
EXPONENT_GUIDE = (
    "Exponents k of growth with the number of pixels: a quantity grows like pixels to the power k, by least squares "
    "through the measured sizes."
)
PUBLISHED_GUIDE = (
    "Paper: ImageNet-1K top-1 in percent, parameters in millions and multiply-adds in billions at 224×224, from "
    "the paper. They were not measured here."
)
WINDOWED_NOTE = (
    "windowed has no published figures of its own; at 224×224 it computes the same function as partial_windowed, so "
    "those figures are its own there."
)


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        model: Name of the variant.
        rows: Mechanisms at sizes.
        memory: The bound in bytes that passes had to keep to; None without one.
        machine: What it was measured on, as `describe_machine` tells.
        date: When, as text.
        command: What was typed.
    """

    model: str
    rows: Sequence[Row]
    memory: int | None
    machine: dict[str, Any]
    date: str
    command: str

    @property
    def sides(self) -> list[int]:
        """The sizes, smallest first."""
        return sorted({row.side for row in self.rows})

    @property
    def attentions(self) -> list[str]:
        """The mechanisms, in the order they were measured in."""
        return list(dict.fromkeys(row.attention for row in self.rows))

    def of(self, attention: str) -> list[Row]:
        """Return the rows of a mechanism."""
        return [row for row in self.rows if row.attention == attention]

    def published(self, attention: str) -> PublishedComparison | None:
        """Return the published figures of a mechanism for this model; None if there are none."""
        return MECHANISMS[attention].published if self.model == PUBLISHED_MODEL else None

    @property
    def notes(self) -> list[str]:
        """Sentences on what was not measured, and on what was not published."""
        notes = [f"{row.attention} at {row.side}: {row.found.note}" for row in self.rows if row.found.note]
        if self.model == PUBLISHED_MODEL and "windowed" in self.attentions:
            notes.append(WINDOWED_NOTE)
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can store it."""
        published = {name: self.published(name) for name in self.attentions}
        return {
            "format_version": FORMAT_VERSION,
            "model": self.model,
            "date": self.date,
            "command": self.command,
            "machine": self.machine,
            "memory_bound": self.memory,
            "rows": [row.to_dict(threads=self.machine["threads"]) for row in self.rows],
            "mechanisms": [
                {
                    "attention": name,
                    "exponents": exponents(self.of(name)),
                    "published": None if figures is None else dataclasses.asdict(figures),
                }
                for name, figures in published.items()
            ],
            "notes": self.notes,
        }


def comparison_report(comparison: Comparison) -> Report:
    """Return tables, figures and values of a comparison."""
    bound = "none" if comparison.memory is None else gigabytes(comparison.memory)
    of_sizes, summary = [_size_grid(comparison, side) for side in comparison.sides], _summary_grid(comparison)
    facts = describe(comparison.machine, date=comparison.date, command=comparison.command)
    return Report(
        title=f"Attention mechanisms in {comparison.model}",
        facts={**facts, "Bound on memory": bound},
        figures=figures(comparison),
        grids=[summary, *of_sizes],
        narrow_grids=[*of_sizes, summary],
        guides=_guides(comparison),
        lists={"Notes": comparison.notes},
        notes=comparison.notes,
        values=comparison.to_dict(),
    )


# --- tables, as text: the terminal and the page show the same cells --------------------------------------------------


def _size_grid(comparison: Comparison, side: int) -> Grid:
    header = ("mechanism", "params\nM", "MACs\nG", "time\nms", "attn\nms", "peak\nMB")
    rows = [_cells(row) for row in comparison.rows if row.side == side]
    return Grid(f"{comparison.model} at {side} × {side} pixels", header, rows)


def _cells(row: Row) -> list[str]:
    multiply_adds = row.multiply_adds / 1e9
    counted = f"{multiply_adds:,.0f}" if multiply_adds >= 100 else f"{multiply_adds:.1f}"
    cells = [row.attention, f"{row.parameters / 1e6:.1f}", counted]
    found = row.found
    if not row.is_measured:
        if found.status == "too large" and found.forecast_memory is not None:
            return [*cells, f"would need {gigabytes(found.forecast_memory)}", "–", "–"]
        forecast = "–" if found.forecast_memory is None else f"({found.forecast_memory / 1e6:.0f})"
        return [*cells, found.status, "–", forecast]
    low, middle, high = (f"{1e3 * f(found.seconds):.0f}" for f in (min, statistics.median, max))
    memory = "–" if found.peak_memory is None else f"{found.peak_memory / 1e6:.0f}"
    attention = 1e3 * statistics.median(found.attention_seconds)
    return [*cells, f"{middle} ({low}–{high})", f"{attention:.0f}", memory]


def _summary_grid(comparison: Comparison) -> Grid:
    header = ("mechanism", *EXPONENTS.values(), "paper\ntop-1", "paper\nparams", "paper\nMACs")
    rows = []
    for name in comparison.attentions:
        fitted, figures = exponents(comparison.of(name)), comparison.published(name)
        published = (
            ["–"] * 3
            if figures is None
            else [f"{figures.top1:.1f}", f"{figures.parameters / 1e6:.1f}", f"{figures.multiply_adds / 1e9:.2f}"]
        )
        rows.append([name, *("–" if fitted[key] is None else f"{fitted[key]:.2f}" for key in EXPONENTS), *published])
    return Grid("Exponents of growth with the number of pixels", header, rows)


def _guides(comparison: Comparison) -> list[str]:
    guides = [GUIDE, EXPONENT_GUIDE]
    guides += [PUBLISHED_GUIDE] if any(comparison.published(name) for name in comparison.attentions) else []
    if any(_cells(row)[-1].startswith("(") for row in comparison.rows):
        guides.append("Memory in brackets was forecast, not measured.")
    if any(row.is_measured and row.found.peak_memory is None for row in comparison.rows):
        guides.append("This system does not say how much memory a process has taken.")
    return guides


# --- figures ---------------------------------------------------------------------------------------------------------


def figures(comparison: Comparison) -> list[Figure]:
    """Return the figures of a comparison: time and multiply-adds, memory and parameters."""
    return [
        Figure(
            "time.svg",
            "Time and multiply-adds against resolution. Dashed: full attention in stages 3 and 4.",
            [
                _panel(comparison, "Measured time of a pass", "seconds", _median_seconds),
                _panel(comparison, "Multiply-adds of a pass", "billions", lambda row: row.multiply_adds / 1e9),
            ],
        ),
        Figure(
            "memory.svg",
            "Memory and parameters against resolution. A model runs at any size with the parameters in the tables; "
            "these are those of one whose position tables and projections are sized for that image.",
            [
                _panel(comparison, "Peak memory above the loaded model", "gigabytes", _peak_gigabytes),
                _panel(comparison, "Parameters for that size", "millions", lambda row: row.parameters_at_size / 1e6),
            ],
        ),
    ]


def _median_seconds(row: Row) -> float | None:
    return statistics.median(row.found.seconds) if row.is_measured else None


def _peak_gigabytes(row: Row) -> float | None:
    peak = row.found.peak_memory
    return peak / 1e9 if peak else None  # zero has no place on a logarithmic axis


def _panel(comparison: Comparison, title: str, unit: str, value: Callable[[Row], float | None]) -> Chart:
    lines = []
    for name in comparison.attentions:
        points = [(float(row.side), value(row)) for row in comparison.of(name)]
        lines.append(_line(name, [(x, y) for x, y in points if y is not None]))
    ticks = [(float(side), str(side)) for side in comparison.sides]
    return panel(title, unit, lines, x_name="side of the square image in pixels", ticks=ticks)


def _line(attention: str, points: Sequence[tuple[float, float]]) -> Series:
    """Return how a mechanism is drawn: its partial form, dashed, has its colour."""
    number = [name for name in list_mechanisms() if not name.startswith(PARTIAL)].index(attention.removeprefix(PARTIAL))
    marker = list(MARKERS)[number % len(MARKERS)]
    return line(attention, points, number=number, marker=marker, dashed=attention.startswith(PARTIAL))
