"""The memory of a run as a chart: what the process held, what the plan allowed, what whole images would need."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Literal

from vision_longformer.reports.axes import Axis
from vision_longformer.utils.memory_trace import MemoryTrace, Span
from vision_longformer.utils.system_memory import gigabytes

WIDTH, HEIGHT = 960, 340  # in SVG units, near CSS pixels
LEFT, RIGHT, TOP, BOTTOM = 74, 22, 30, 52  # margins around the axes
FEWEST = 3  # samples that make a curve
OFF_CHART = 2.0  # what is beyond so many times all else is told, not drawn

UNITS = ((2 * 86400.0, 86400.0, "days"), (2 * 3600.0, 3600.0, "hours"), (180.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))


def memory_section(trace: MemoryTrace) -> str:
    """Return a section of the page; "" if there is too little to show."""
    if len(trace.samples) < FEWEST:
        return ""
    return (
        "<section><h2>Memory over the run</h2><figure class='chart'>"
        f"{_legend(trace)}{_draw(trace)}<figcaption>{html.escape(_caption(trace))}</figcaption></figure></section>\n"
    )


def _caption(trace: MemoryTrace) -> str:
    peak = max(sample.bytes for sample in trace.samples)
    parts = [f"The process held {gigabytes(peak)} of memory at most, everything it loaded included."]
    forecasts = [span.forecast for span in trace.spans if span.forecast is not None]
    if forecasts:
        share = peak / max(forecasts)
        parts.append(f"The plan forecast {gigabytes(max(forecasts))} at most; the peak is {share:.0%} of it.")
    wholes = [span.whole for span in trace.spans if span.whole is not None]
    if wholes:
        whole = max(wholes)
        parts.append(f"A pass over {_largest(trace)} as a whole would need {gigabytes(whole)}{_times(whole, peak)}.")
    return " ".join(parts)


def _largest(trace: MemoryTrace) -> str:
    return "the image" if len(trace.spans) == 1 else "the largest image"


def _times(whole: int, peak: int) -> str:
    times = f"{whole / peak:.1f}" if whole < 10 * peak else f"{whole / peak:.0f}"
    return f", {times} times as much as was held" if whole > 1.05 * peak else ""


def _legend(trace: MemoryTrace) -> str:
    entries = [("held", "Held by the process")]
    if any(span.forecast is not None for span in trace.spans):
        entries.append(("forecast", "Forecast by the plan"))
    if any(span.whole is not None for span in trace.spans) and not _top(trace)[1]:
        entries.append(("whole", "Needed for the image as a whole"))
    return "".join(f"<span class='entry'><span class='key {kind}'></span>{text}</span>" for kind, text in entries)


def _draw(trace: MemoryTrace) -> str:
    end = max(trace.samples[-1].seconds, *(span.end for span in trace.spans), 1e-3)
    top, hidden = _top(trace)
    step, unit = (1e9, "GB") if top >= 1e9 else (1e6, "MB")
    seconds, time_unit = next((size, name) for least, size, name in UNITS if end >= least)
    x = Axis(0.0, end / seconds, LEFT, WIDTH - RIGHT)
    y = Axis(0.0, top / step, HEIGHT - BOTTOM, TOP)
    places = [(x(sample.seconds / seconds), y(sample.bytes / step)) for sample in trace.samples]
    curve = "L".join(f"{across:.1f} {down:.1f}" for across, down in places)
    floor = HEIGHT - BOTTOM
    parts = [f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='Memory in {unit} by {time_unit}'>"]
    parts += _axes(x, y, unit, time_unit)
    parts.append(f"<path class='under held' d='M{places[0][0]:.1f} {floor}L{curve}L{places[-1][0]:.1f} {floor}Z'/>")
    parts.append(f"<path class='line held' d='M{curve}'/>")
    kinds: tuple[Literal["forecast", "whole"], ...] = ("forecast",) if hidden else ("forecast", "whole")
    for kind in kinds:
        parts.append(_steps(trace.spans, kind, lambda at: x(at / seconds), lambda size: y(size / step)))
    if hidden:
        text = f"↑ {_largest(trace)} as a whole: {gigabytes(hidden)}"
        parts.append(f"<text class='off' x='{WIDTH - RIGHT}' y='{TOP - 10}' text-anchor='end'>{text}</text>")
    return "".join([*parts, "</svg>"])


def _top(trace: MemoryTrace) -> tuple[float, int]:
    """Return the bytes at the top of the chart, and what lies too far beyond them to be drawn; 0 if nothing does."""
    near = max(sample.bytes for sample in trace.samples)
    near = max([near, *(span.forecast for span in trace.spans if span.forecast is not None)])
    whole = max((span.whole for span in trace.spans if span.whole is not None), default=0)
    hidden = whole if whole > OFF_CHART * near else 0
    return 1.08 * max(near, 0 if hidden else whole), hidden


def _axes(x: Axis, y: Axis, unit: str, time_unit: str) -> list[str]:
    parts = []
    for value, text in y.ticks(5):
        parts.append(f"<path class='grid' d='M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}'/>")
        parts.append(f"<text x='{LEFT - 9}' y='{y(value) + 5:.1f}' text-anchor='end'>{text}</text>")
    for value, text in x.ticks(8):
        parts.append(f"<text x='{x(value):.1f}' y='{HEIGHT - BOTTOM + 20}' text-anchor='middle'>{text}</text>")
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f"<path class='axis' d='M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}'/>")
    parts.append(f"<text x='{middle}' y='{HEIGHT - 8}' text-anchor='middle'>{time_unit} since the run began</text>")
    parts.append(f"<text x='{LEFT - 9}' y='{TOP - 10}' text-anchor='end'>{unit}</text>")
    return parts


def _steps(
    spans: Sequence[Span],
    kind: Literal["forecast", "whole"],
    across: Callable[[float], float],
    down: Callable[[float], float],
) -> str:
    """Return a level line for each image that something is known of."""
    known = [(span, span.forecast if kind == "forecast" else span.whole) for span in spans]
    lines = [
        f"M{across(span.start):.1f} {down(size):.1f}H{across(span.end):.1f}" for span, size in known if size is not None
    ]
    return f"<path class='line {kind}' d='{''.join(lines)}'/>" if lines else ""


STYLE = """
:root { --held: #0072b2; --forecast: #d55e00; --whole: #00805f; }
@media (prefers-color-scheme: dark) { :root { --held: #56b4e9; --forecast: #e69f00; --whole: #2bc39a; } }
.chart { padding: .8rem 1rem .3rem; max-width: 1000px; }
.chart figcaption { padding: .4rem 0 .6rem; }
.chart svg { display: block; width: 100%; height: auto; }
.chart text { font-size: 14px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.chart .grid { stroke: var(--line); }
.chart .axis { stroke: var(--soft); }
.chart .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.chart .line.held { stroke: var(--held); }
.chart .under.held { fill: var(--held); fill-opacity: .15; }
.chart .line.forecast { stroke: var(--forecast); stroke-dasharray: 9 5; }
.chart .line.whole { stroke: var(--whole); stroke-dasharray: 2 4; stroke-width: 2.5; }
.chart .off { fill: var(--whole); font-weight: 600; }
.entry { white-space: nowrap; margin-right: 1.4em; font-size: .9rem; }
.key { display: inline-block; width: 1.8em; margin-right: .5em; vertical-align: .25em; border-top: 2.5px solid; }
.key.held { color: var(--held); }
.key.forecast { color: var(--forecast); border-top-style: dashed; }
.key.whole { color: var(--whole); border-top-style: dotted; }
"""
