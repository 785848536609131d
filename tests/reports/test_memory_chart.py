from __future__ import annotations

import pytest

from vision_longformer.reports.charts import Series
from vision_longformer.reports.memory_chart import MemoryPart, memory_part
from vision_longformer.utils.memory_trace import MemoryTrace, Sample, Span


def trace(*sizes: float, seconds: float = 40.0, spans: list[Span] | None = None) -> MemoryTrace:
    """Return a trace of sizes in gigabytes, evenly spread."""
    step = seconds / (len(sizes) - 1)
    samples = [Sample(step * number, int(size * 1e9)) for number, size in enumerate(sizes)]
    return MemoryTrace(samples, spans or [])


def span(forecast: float | None, whole: float | None, *, start: float = 10.0, end: float = 30.0) -> Span:
    return Span(start, end, *(None if size is None else int(size * 1e9) for size in (forecast, whole)))


def part(trace: MemoryTrace) -> MemoryPart:
    found = memory_part(trace)
    assert found is not None
    return found


def lines(trace: MemoryTrace) -> tuple[Series, Series, Series]:
    """Return what was held, what was forecast, and what a whole pass would need."""
    held, forecast, whole = part(trace).chart.series
    return held, forecast, whole


def test_the_curve_and_the_forecast_stand_on_one_scale() -> None:
    held, forecast, whole = lines(trace(1, 2, 0, 1, spans=[span(2, None)]))
    (curve,) = held.lines
    assert [x for x, _ in curve] == pytest.approx([0, 40 / 3, 80 / 3, 40])
    assert [y for _, y in curve] == [1, 2, 0, 1]
    assert held.band == [(0, 0), *curve, (40, 0)]
    assert forecast.lines == [[(10, 2), (30, 2)]]
    assert whole.lines == []


def test_what_a_whole_pass_needs_is_drawn_where_it_is_near() -> None:
    shown = part(trace(1, 2, 1, spans=[span(2.1, 3.5)]))
    assert shown.chart.series[2].lines == [[(10, 3.5), (30, 3.5)]]
    assert shown.chart.y[1] > 3.5
    assert "The process held 2.00 GB" in shown.caption
    assert "forecast 2.10 GB at most; the peak is 95% of it" in shown.caption
    assert "would need 3.50 GB, 1.8 times as much as was held" in shown.caption


def test_what_is_far_beyond_is_told_and_not_drawn() -> None:
    shown = part(trace(1, 2, 1, spans=[span(2.1, 63)]))
    assert shown.chart.series[2].lines == []
    assert shown.chart.note == "↑ the image as a whole: 63.0 GB"
    assert "32 times as much" in shown.caption
    assert 2.1 < shown.chart.y[1] < 2.5  # the curve still fills the chart


def test_each_image_has_its_own_level() -> None:
    spans = [span(2.1, 4, end=15), span(None, None), span(1, 3, start=20)]
    _, forecast, whole = lines(trace(1, 2, 1, spans=spans))
    assert forecast.lines == [[(10, 2.1), (15, 2.1)], [(20, 1), (30, 1)]]
    assert whole.lines == [[(10, 4), (15, 4)], [(20, 3), (30, 3)]]
    assert "the largest image as a whole would need 4.00 GB" in part(trace(1, 2, 1, spans=spans)).caption


@pytest.mark.parametrize(
    ("seconds", "unit"), [(40, "seconds"), (179, "seconds"), (181, "minutes"), (3 * 3600, "hours"), (3 * 86400, "days")]
)
def test_time_is_told_in_fitting_units(seconds: float, unit: str) -> None:
    assert part(trace(1, 2, 1, seconds=seconds)).chart.x_name == f"{unit} since the run began"


def test_small_amounts_are_told_in_megabytes() -> None:
    chart = part(trace(0.5, 0.7, 0.6)).chart
    assert chart.y_name == "MB"
    assert "600" in [text for _, text in chart.rows]


def test_without_a_plan_the_curve_stands_alone() -> None:
    shown = part(trace(1, 2, 1, spans=[span(None, None)]))
    assert [len(series.lines) for series in shown.chart.series] == [1, 0, 0]
    assert "forecast" not in shown.caption


def test_too_few_samples_are_no_curve() -> None:
    assert memory_part(trace(1, 2)) is None
    assert memory_part(MemoryTrace()) is None
