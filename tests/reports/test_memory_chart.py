from __future__ import annotations

import re

import pytest

from vision_longformer.reports.memory_chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, memory_section
from vision_longformer.utils.memory_trace import MemoryTrace, Sample, Span


def trace(*sizes: float, seconds: float = 40.0, spans: list[Span] | None = None) -> MemoryTrace:
    """Return a trace of sizes in gigabytes, evenly spread."""
    step = seconds / (len(sizes) - 1)
    samples = [Sample(step * number, int(size * 1e9)) for number, size in enumerate(sizes)]
    return MemoryTrace(samples, spans or [])


def span(forecast: float | None, whole: float | None, *, start: float = 10.0, end: float = 30.0) -> Span:
    return Span(start, end, *(None if size is None else int(size * 1e9) for size in (forecast, whole)))


def line(section: str, kind: str) -> list[tuple[float, float]]:
    """Return the places of a line."""
    path = re.search(f"class='line {kind}' d='([^']*)'", section)
    assert path is not None, section
    numbers = re.findall(r"([ML])([\d.]+) ([\d.]+)(?:H([\d.]+))?", path[1])
    return [
        place for _, x, y, x2 in numbers for place in ((float(x), float(y)), *([(float(x2), float(y))] if x2 else []))
    ]


def test_the_curve_and_the_forecast_stand_on_one_scale() -> None:
    section = memory_section(trace(1, 2, 0, 1, spans=[span(2, None)]))
    held = line(section, "held")
    assert [x for x, _ in held] == pytest.approx([LEFT, LEFT + 288, LEFT + 576, WIDTH - RIGHT], abs=0.2)
    assert held[2][1] == HEIGHT - BOTTOM
    assert held[0][1] == pytest.approx((held[1][1] + HEIGHT - BOTTOM) / 2, abs=0.1)
    forecast = line(section, "forecast")
    assert [y for _, y in forecast] == [held[1][1]] * 2
    assert [x for x, _ in forecast] == pytest.approx([LEFT + 216, LEFT + 648], abs=0.2)
    assert held[1][1] > TOP


def test_what_a_whole_pass_needs_is_drawn_where_it_is_near() -> None:
    section = memory_section(trace(1, 2, 1, spans=[span(2.1, 3.5)]))
    assert line(section, "whole")[0][1] < line(section, "forecast")[0][1]
    assert "Needed for the image as a whole" in section
    assert "The process held 2.00 GB" in section
    assert "forecast 2.10 GB at most; the peak is 95% of it" in section
    assert "would need 3.50 GB, 1.8 times as much as was held" in section


def test_what_is_far_beyond_is_told_and_not_drawn() -> None:
    section = memory_section(trace(1, 2, 1, spans=[span(2.1, 63)]))
    assert "class='line whole'" not in section
    assert "Needed for the image as a whole" not in section
    assert "↑ the image as a whole: 63.0 GB" in section
    assert "32 times as much" in section
    assert line(section, "held")[1][1] < HEIGHT / 3  # the curve still fills the chart


def test_each_image_has_its_own_level() -> None:
    section = memory_section(trace(1, 2, 1, spans=[span(2.1, 4, end=15), span(None, None), span(1, 3, start=20)]))
    assert len(line(section, "forecast")) == len(line(section, "whole")) == 4
    assert "the largest image as a whole would need 4.00 GB" in section


@pytest.mark.parametrize(
    ("seconds", "unit"), [(40, "seconds"), (179, "seconds"), (181, "minutes"), (3 * 3600, "hours"), (3 * 86400, "days")]
)
def test_time_is_told_in_fitting_units(seconds: float, unit: str) -> None:
    assert f"{unit} since the run began" in memory_section(trace(1, 2, 1, seconds=seconds))


def test_small_amounts_are_told_in_megabytes() -> None:
    section = memory_section(trace(0.5, 0.7, 0.6))
    assert ">MB</text>" in section
    assert ">600</text>" in section


def test_without_a_plan_the_curve_stands_alone() -> None:
    section = memory_section(trace(1, 2, 1, spans=[span(None, None)]))
    assert "Forecast" not in section
    assert "forecast" not in section.replace("line held", "")


def test_too_few_samples_are_no_curve() -> None:
    assert memory_section(trace(1, 2)) == ""
    assert memory_section(MemoryTrace()) == ""
