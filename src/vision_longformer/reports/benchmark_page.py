"""What `vil benchmark` shows: tables for the terminal, figures, JSON and a web page."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vision_longformer.benchmarking.benchmark import Mode, Row, Size, size_name
from vision_longformer.benchmarking.published import RESOLUTION, published_accuracy
from vision_longformer.benchmarking.timing import gflops, ratios
from vision_longformer.reports.charts import MARKERS, Chart, Series
from vision_longformer.reports.measured import COLOURS, Figure, Grid, Report, describe, line, panel

FORMAT_VERSION = 1
MOST_ACCURACY_PANELS = 3
RUNTIME_MARKERS = {"eager": "circle", "onnxruntime": "square", "openvino": "triangle"}
WORK: dict[Mode, str] = {"inference": "a pass", "training": "a training step"}
GUIDE = (
    "Float32 images and weights are random. Time is the median of the turns (lowest to highest); all models of a table "
    "took turns in one process, together with a large matrix product. Peak is the share of that product's rate that "
    "the multiply-adds a model needs were computed at, in the same turn; GFLOP/s counts the same, two operations for "
    "each, and a training step as three passes. Memory is the peak resident memory above that of the loaded model, "
    "in a process of its own."
)
FIRST_GUIDE = "× is the time over that of {model}, or else of the first row that was measured, turn by turn."
ACCURACY_GUIDE = (
    f"Top-1 was published, for ImageNet-1K at {RESOLUTION}×{RESOLUTION} without other training images; it was not "
    "measured here, and models without such a figure are left out."
)


@dataclass(frozen=True)
class Benchmark:
    """A finished benchmark.

    Attributes:
        rows: Models in runtimes at sizes.
        machine: What it was measured on, as `describe_machine` tells.
        date: When, as text.
        command: What was typed.
    """

    rows: Sequence[Row]
    machine: dict[str, Any]
    date: str
    command: str

    @property
    def groups(self) -> list[tuple[Mode, Size]]:
        """What was timed together: modes at sizes."""
        return list(dict.fromkeys((row.mode, row.size) for row in self.rows))

    def of(self, mode: Mode, size: Size) -> list[Row]:
        """Return the rows that were timed together."""
        return [row for row in self.rows if (row.mode, row.size) == (mode, size)]

    @property
    def peak_gflops(self) -> float | None:
        """Billions of operations a second of the matrix product, the median of all turns; None if nothing was timed."""
        peaks = [gflops(row.product_multiply_adds, seconds) for row in self.rows for seconds in row.product_seconds]
        return statistics.median(peaks) if peaks else None

    @property
    def notes(self) -> list[str]:
        """Sentences on what was not measured, each once."""
        notes: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            if row.note:
                notes.setdefault((row.model, row.note), []).append(_where(row))
        return [f"{model} {note}: {', '.join(dict.fromkeys(where))}" for (model, note), where in notes.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can store it."""
        published = {row.model: published_accuracy(row.model) for row in self.rows}
        return {
            "format_version": FORMAT_VERSION,
            "date": self.date,
            "command": self.command,
            "machine": {**self.machine, "matrix_product_gflops": self.peak_gflops},
            "rows": [{**dataclasses.asdict(row), **_derived(row)} for row in self.rows],
            "published_top1": {model: found and dataclasses.asdict(found) for model, found in published.items()},
            "notes": self.notes,
        }


def _where(row: Row) -> str:
    runtime = "" if row.runtime == "eager" else f" in {row.runtime}"
    return f"not measured at {size_name(row.size)}{' in training' if row.mode == 'training' else ''}{runtime}"


def _derived(row: Row) -> dict[str, float | None]:
    if not row.seconds:
        return {}
    seconds = statistics.median(row.seconds)
    return {
        "median_seconds": seconds,
        "images_per_second": row.batch / seconds,
        "megapixels_per_second": _megapixels(row) / seconds,
        "gflops": None if row.multiply_adds is None else gflops(row.batch * row.multiply_adds, seconds),
        "share_of_peak": statistics.median(row.shares_of_peak) if row.shares_of_peak else None,
    }


def _megapixels(row: Row) -> float:
    return row.batch * row.size[0] * row.size[1] / 1e6


def benchmark_report(result: Benchmark) -> Report:
    """Return tables, figures and values of a benchmark."""
    peak = result.peak_gflops
    product = "–" if peak is None else f"{peak:.0f} GFLOP/s in float32, the median of all turns"
    published = {row.model: published_accuracy(row.model) for row in result.rows}
    sources = [f"{model}: {found.top1:g}, {found.source}" for model, found in published.items() if found]
    return Report(
        title="Models side by side",
        facts={**describe(result.machine, date=result.date, command=result.command), "Matrix product": product},
        figures=figures(result),
        grids=[_grid(result, mode, size, wide=True) for mode, size in result.groups],
        narrow_grids=[_grid(result, mode, size, wide=False) for mode, size in result.groups],
        guides=_guides(result),
        lists={"Sources of published accuracies": sources, "Not measured": result.notes},
        notes=result.notes,
        values=result.to_dict(),
    )


# --- tables ----------------------------------------------------------------------------------------------------------


def _grid(result: Benchmark, mode: Mode, size: Size, *, wide: bool) -> Grid:
    rows = result.of(mode, size)
    header = ["model", "ms", "×", "Mpx/s", "GFLOP/s", "peak\n%", "memory\nMB"]
    if wide:
        header += ["images/s", "params\nM", "MACs\nG", "top-1\npublished"]
    images = "image" if rows[0].batch == 1 else f"{rows[0].batch} images"
    title = f"{mode.capitalize()}, {images} of {size[0]} × {size[1]} pixels"
    eager = {row.model for row in rows if row.runtime == "eager"}  # stand above their exported forms
    first = _first(rows)
    return Grid(title, header, [[_label(row, eager), *_cells(row, first, wide=wide)] for row in rows])


def _label(row: Row, above: set[str]) -> str:
    return f"\u2003in {row.runtime}" if row.runtime != "eager" and row.model in above else _name(row)


def _first(rows: Sequence[Row]) -> Row | None:
    return next((row for row in rows if row.seconds), None)


def _name(row: Row) -> str:
    return row.model if row.runtime == "eager" else f"{row.model} in {row.runtime}"


def _cells(row: Row, first: Row | None, *, wide: bool) -> list[str]:
    known = [_number(row.parameters, 1e6), _number(row.multiply_adds, 1e9), _top1(row)]
    if not row.seconds or first is None:
        return [row.status, *["–"] * 5, *(["–", *known] if wide else [])]
    derived = _derived(row)
    low, middle, high = (_milliseconds(f(row.seconds)) for f in (min, statistics.median, max))
    share = derived["share_of_peak"]
    cells = [
        f"{middle} ({low}–{high})",
        f"{statistics.median(ratios(row.seconds, first.seconds)):.2f}",
        f"{derived['megapixels_per_second']:.2f}",
        "–" if derived["gflops"] is None else f"{derived['gflops']:.0f}",
        "–" if share is None else f"{100 * share:.0f}",
        "–" if row.peak_memory is None else f"{row.peak_memory / 1e6:,.0f}",
    ]
    return [*cells, f"{derived['images_per_second']:.2f}", *known] if wide else cells


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.1f}"


def _number(value: float | None, unit: float) -> str:
    return "–" if value is None else f"{value / unit:,.1f}"


def _top1(row: Row) -> str:
    published = published_accuracy(row.model)
    return "–" if published is None else f"{published.top1:g}"


def _guides(result: Benchmark) -> list[str]:
    guides = [GUIDE]
    if first := _first(result.rows):
        guides.append(FIRST_GUIDE.format(model=_name(first)))
    if peak := result.peak_gflops:
        guides.append(f"The matrix product reached {peak:.0f} GFLOP/s, the median of all turns.")
    return guides


# --- figures ---------------------------------------------------------------------------------------------------------


def figures(result: Benchmark) -> list[Figure]:
    """Return the figures of a benchmark: each mode against size, and accuracy against time where it is known."""
    found = []
    for mode in dict.fromkeys(mode for mode, _ in result.groups):
        charts = [
            _panel(result, mode, f"Time of {WORK[mode]}", "seconds", lambda row: statistics.median(row.seconds)),
            _panel(result, mode, "Peak memory above the loaded model", "gigabytes", _gigabytes),
        ]
        caption = f"Time and memory of {WORK[mode]} against the size of the image."
        if any(row.runtime != "eager" and row.mode == mode for row in result.rows):
            caption += " Dashed: exported models."
        found.append(Figure(f"{mode}.svg", caption, charts))
    sizes = [size for mode, size in result.groups if mode == "inference"]
    accuracy = [panel for size in sizes if not (panel := _accuracy_panel(result, size)).is_empty]
    if accuracy:
        caption = f"{ACCURACY_GUIDE} Upper left is better."
        found.append(Figure("accuracy.svg", caption, accuracy[-MOST_ACCURACY_PANELS:]))
    return found


def _gigabytes(row: Row) -> float | None:
    return row.peak_memory / 1e9 if row.peak_memory else None  # zero has no place on a logarithmic axis


def _panel(result: Benchmark, mode: Mode, title: str, unit: str, value: Callable[[Row], float | None]) -> Chart:
    rows = [row for row in result.rows if row.mode == mode]
    lines = []
    for model, runtime in dict.fromkeys((row.model, row.runtime) for row in rows if row.seconds):
        own = [row for row in rows if (row.model, row.runtime) == (model, runtime) and row.seconds]
        points = [(math.sqrt(row.size[0] * row.size[1]), value(row)) for row in own]
        lines.append(_line(result, own[0], [(x, y) for x, y in points if y is not None]))
    ticks = [(math.sqrt(size[0] * size[1]), size_name(size)) for which, size in result.groups if which == mode]
    return panel(title, unit, lines, x_name="side of the image in pixels", ticks=ticks)


def _accuracy_panel(result: Benchmark, size: Size) -> Chart:
    points = []
    for row in result.of("inference", size):
        published = published_accuracy(row.model)
        if published is not None and row.seconds:
            milliseconds = 1e3 * statistics.median(row.seconds) / row.batch
            points.append(_line(result, row, [(milliseconds, published.top1)], joined=False))
    return panel(f"Time at {size_name(size)}", "published top-1 in percent", points, x_name="milliseconds an image")


def _line(result: Benchmark, row: Row, points: Sequence[tuple[float, float]], *, joined: bool = True) -> Series:
    models = list(dict.fromkeys(row.model for row in result.rows))
    number = models.index(row.model)
    shapes = list(MARKERS)
    marker = RUNTIME_MARKERS[row.runtime] if len(models) <= len(COLOURS) else shapes[number // len(COLOURS) % 4]
    return line(_name(row), points, number=number, marker=marker, dashed=row.runtime != "eager", joined=joined)
