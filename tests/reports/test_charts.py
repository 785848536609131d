from __future__ import annotations

import pytest

from reports.pages import Page
from vision_longformer.reports.charts import MAX_POINTS, Chart, Series, curve, points_of, range_of
from vision_longformer.reports.pages import environment


def drawn(chart: Chart) -> Page:
    """Return a chart as a page has it, with its title and legend."""
    return Page(environment().from_string("{{ draw.figure(chart) }}").render(chart=chart))


def of(values: list[tuple[float, float]], **options: object) -> Chart:
    """Return a chart of a line."""
    series = [curve("training", "blue", points_of(values)[0], marked=True)]
    return Chart("Loss", "nats", series, (0.0, 10.0), range_of(series), **options)  # type: ignore[arg-type]


def test_long_series_are_averaged_and_what_is_no_number_is_left_out() -> None:
    count = 3 * MAX_POINTS
    points, group = points_of([(0.0, float("nan")), (0.0, float("inf")), *((float(i), float(i)) for i in range(count))])
    assert (len(points), group) == (MAX_POINTS, 3)
    assert points[1] == (4.0, 4.0, 3.0, 5.0)
    band = curve("", "blue", points).band
    assert len(band) == 2 * MAX_POINTS
    assert (band[1], band[-2]) == ((4.0, 5.0), (4.0, 3.0))


def test_places_of_points_follow_their_values() -> None:
    chart = of([(0.0, 1.0), (5.0, 2.0), (10.0, 3.0)])
    places = [(float(circle["cx"]), float(circle["cy"])) for circle in drawn(chart).points]
    xs, ys = zip(*places, strict=True)
    left, right = chart.across.start, chart.across.end
    assert xs == (left, (left + right) / 2, right)
    assert ys[0] > ys[1] > ys[2]  # downwards in SVG
    assert ys[1] == pytest.approx((ys[0] + ys[2]) / 2, abs=0.1)


def test_a_chart_is_told_to_those_who_cannot_see_it_and_its_lines_are_named() -> None:
    page = drawn(of([(0.0, 1.0), (5.0, 2.0)], y_name="nats"))
    (svg,) = page.all("svg", "chart")
    assert svg["aria-label"] == "Loss, nats by epoch"
    assert [title.text for title in svg.all("title")] == ["training"] * 3  # the line and its points
    assert [entry.text for entry in page.all("span", "entry")] == ["training"]


@pytest.mark.parametrize("values", [[0.0], [5e-7], [100.0, 100.0], [1e-6, 3e6], [0.0, 0.0]])
def test_axes_fit_any_values(values: list[float]) -> None:
    chart = of([(float(index), value) for index, value in enumerate(values)])
    page = drawn(chart)
    assert 2 <= page.count("path", "grid") <= 8
    places = [float(circle["cy"]) for circle in page.points]
    assert len(places) == len(values)
    assert all(chart.down.end <= y <= chart.down.start for y in places)


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.8, 150.0, ["1", "3", "10", "30", "100"]),
        (19.0, 76.0, ["20", "30", "50", "70"]),
        (24.61, 25.2, ["24.6", "24.8", "25.0", "25.2"]),
        (5.0, 5.0, ["4.6", "4.8", "5.0", "5.2", "5.4"]),
        (0.0009, 2e5, ["0.001", "0.01", "0.1", "1", "10", "100", "1,000", "10,000", "100,000"]),
    ],
)
def test_logarithmic_axes_have_round_values(low: float, high: float, texts: list[str]) -> None:
    series = [Series("a", "ink", [[(1.0, low), (100.0, high)]])]
    chart = Chart("Time", "seconds", series, (1.0, 100.0), range_of(series, log=True), log="xy", kind="panel")
    assert [text for _, text in chart.rows] == texts
    middle = (chart.across.start + chart.across.end) / 2
    assert chart.across(10.0) == pytest.approx(middle)


def test_named_ticks_stand_where_their_values_are() -> None:
    chart = Chart("Time", "seconds", [], (4.0, 16.0), (1.0, 10.0), x_ticks=[(4, "4"), (8, "7×9")], log="x")
    page = drawn(chart)
    assert [text.text for text in page.all("text") if text.text in ("4", "7×9")][-2:] == ["4", "7×9"]
    assert [place for place, _ in chart.columns] == [
        chart.across.start,
        pytest.approx((chart.across.start + chart.across.end) / 2),
    ]
    assert "nothing was measured" in page.text


def test_a_shape_stands_where_its_value_is() -> None:
    series = [Series("a", "sky", [], [(5.0, 2.0)], marker="square", marked=True)]
    page = drawn(Chart("Time", "seconds", series, (0.0, 10.0), (0.0, 4.0)))
    mark = page.all("svg", "chart")[0].all("path", "point")[0]
    assert mark["d"].startswith("M268.0 120.0m")
    assert page.count("path", "line") == 0
    assert page.all("span", "entry")[0].text == "a"
