from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vision_longformer.explore.strokes import Project, Stroke, covered, painted


def _covered(stroke: Stroke, *, stride: int = 4, size: tuple[int, int] = (9, 13)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[covered(stroke, stride=stride, size=size)] = True
    return mask


def test_a_stroke_covers_tokens_whose_middle_its_brush_reaches() -> None:
    stroke = Stroke(0, ((6.0, 6.0), (30.0, 18.0), (44.0, 2.0)), 5.0)

    found = _covered(stroke)

    y, x = np.mgrid[:9, :13] * 4.0 + 2
    expected = np.zeros((9, 13), bool)
    for start, end in zip(stroke.points, stroke.points[1:], strict=False):
        for share in np.linspace(0, 1, 4001):
            place = np.array(start) * (1 - share) + np.array(end) * share
            expected |= np.hypot(x - place[0], y - place[1]) <= 5
    expected[6 // 4, 6 // 4] = expected[18 // 4, 30 // 4] = expected[2 // 4, 44 // 4] = True
    np.testing.assert_array_equal(found, expected)


def test_the_smallest_brush_covers_the_token_that_its_point_lies_in() -> None:
    found = _covered(Stroke(0, ((7.9, 4.1),), 0.0))

    assert np.argwhere(found).tolist() == [[1, 1]]


def test_nothing_is_covered_outside_the_image() -> None:
    assert not _covered(Stroke(0, ((-50.0, 10.0), (-20.0, 400.0)), 8.0)).any()


def test_the_last_stroke_counts_and_an_eraser_leaves_nothing() -> None:
    size = (1, 6)
    strokes = [
        Stroke(0, ((2.0, 2.0), (22.0, 2.0)), 1.0),
        Stroke(1, ((14.0, 2.0), (22.0, 2.0)), 1.0),
        Stroke(None, ((6.0, 2.0),), 1.0),
    ]

    found = painted(strokes, stride=4, size=size)

    assert found.columns.tolist() == [0, 2, 3, 4, 5]
    assert found.labels.tolist() == [0, 0, 1, 1, 1]
    assert found.strokes.tolist() == [0, 0, 1, 1, 1]


def test_a_project_comes_back_from_its_file(tmp_path: Path) -> None:
    strokes = (Stroke(1, ((1.5, 2.5), (3.0, 4.0)), 7.0), Stroke(None, ((9.0, 9.0),), 2.0))
    project = Project(("ground", "cell"), {"abc": strokes}, {"abc": "a.png"})

    project.save(tmp_path / "strokes.json")

    assert Project.load(tmp_path / "strokes.json") == project


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"content": "boxes"}, "it holds no strokes"),
        ({"format_version": 2}, "format_version is 2, expected 1"),
        ({"classes": ["a", "a"]}, "two have the same name"),
        ({"classes": []}, "there must be 1 to 255, not 0"),
        ({"images": {"x": {"name": "", "strokes": [{"class": 0, "points": [], "radius": 1}]}}}, "1 to 10,000 of them"),
        ({"images": {"x": {"name": "", "strokes": [{"class": 9, "points": [[1, 1]], "radius": 1}]}}}, "class number 9"),
        ({"images": {"x": {"name": "", "strokes": [{"class": 0, "points": [[1]], "radius": 1}]}}}, "not enough values"),
        ({"images": {"x": {"name": "", "strokes": [{"class": 0, "points": [[1, 1]], "radius": -1}]}}}, "radius=-1"),
        ({"images": []}, "damaged"),
    ],
)
def test_damaged_files_are_refused_in_a_sentence(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "strokes.json"
    Project().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(ValueError, match=message) as error:
        Project.load(path)
    assert str(error.value).startswith(f"{path}: is no file of strokes of `vil explore`, or a damaged one (")
