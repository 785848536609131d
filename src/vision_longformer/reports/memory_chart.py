"""The memory of a run as a chart: what the process held, what the plan allowed, what whole images would need."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vision_longformer.reports.charts import Chart, Series
from vision_longformer.utils.memory_trace import MemoryTrace, Span
from vision_longformer.utils.system_memory import gigabytes

FEWEST = 3  # samples that make a curve
OFF_CHART = 2.0  # what is beyond so many times all else is told, not drawn

UNITS = ((2 * 86400.0, 86400.0, "days"), (2 * 3600.0, 3600.0, "hours"), (180.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))


class MemoryPart(NamedTuple):
    """A chart and what it says."""

    chart: Chart
    caption: str


def memory_part(trace: MemoryTrace) -> MemoryPart | None:
    """Return a part of a page; None if there is too little to show."""
    if len(trace.samples) < FEWEST:
        return None
    peak = max(sample.bytes for sample in trace.samples)
    forecasts = [span.forecast for span in trace.spans if span.forecast is not None]
    whole = max((span.whole for span in trace.spans if span.whole is not None), default=0)
    image = "the image" if len(trace.spans) == 1 else "the largest image"
    return MemoryPart(_chart(trace, max([peak, *forecasts]), whole, image), _caption(peak, forecasts, whole, image))


def _caption(peak: int, forecasts: list[int], whole: int, image: str) -> str:
    parts = [f"The process held {gigabytes(peak)} of memory at most, everything it loaded included."]
    if forecasts:
        share = peak / max(forecasts)
        parts.append(f"The plan forecast {gigabytes(max(forecasts))} at most; the peak is {share:.0%} of it.")
    if whole:
        times = f"{whole / peak:.1f}" if whole < 10 * peak else f"{whole / peak:.0f}"
        more = f", {times} times as much as was held" if whole > 1.05 * peak else ""
        parts.append(f"A pass over {image} as a whole would need {gigabytes(whole)}{more}.")
    return " ".join(parts)


def _chart(trace: MemoryTrace, near: int, whole: int, image: str) -> Chart:
    """Draw the trace.

    Args:
        trace: The trace.
        near: Most bytes that were held or forecast.
        whole: Bytes that the largest image would need as a whole; 0 if that is not known.
        image: What that image is called.
    """
    is_off = whole > OFF_CHART * near
    top = 1.08 * max(near, 0 if is_off else whole)
    step, unit = (1e9, "GB") if top >= 1e9 else (1e6, "MB")
    end = max(trace.samples[-1].seconds, *(span.end for span in trace.spans), 1e-3)
    seconds, time_unit = next((size, name) for least, size, name in UNITS if end >= least)

    def levels(size_of: Callable[[Span], int | None]) -> list[list[tuple[float, float]]]:
        """Return a level line for each image that something is known of."""
        known = [(span, size_of(span)) for span in trace.spans]
        return [
            [(span.start / seconds, size / step), (span.end / seconds, size / step)]
            for span, size in known
            if size is not None
        ]

    curve = [(sample.seconds / seconds, sample.bytes / step) for sample in trace.samples]
    under = [(curve[0][0], 0.0), *curve, (curve[-1][0], 0.0)]
    wholes = [] if is_off else levels(lambda span: span.whole)
    series = [
        Series("held by the process", "blue", [curve], band=under),
        Series("forecast by the plan", "orange", levels(lambda span: span.forecast), stroke="dashed"),
        Series("needed for the image as a whole", "green", wholes, stroke="dotted"),
    ]
    return Chart(
        "Memory",
        "",
        series,
        (0.0, end / seconds),
        (0.0, top / step),
        x_name=f"{time_unit} since the run began",
        y_name=unit,
        note=f"↑ {image} as a whole: {gigabytes(whole)}" if is_off else "",
        kind="wide",
    )
