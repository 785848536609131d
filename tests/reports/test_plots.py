from __future__ import annotations

import dataclasses
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vision_longformer.reports.plots import COLOURS, DPI, MARKERS, WIDTH, Line, Panel, draw_panels, legend_rows

SIDES = (224, 448)


def pixels(*panels: Panel, height: float = 3.0) -> np.ndarray:
    with Image.open(io.BytesIO(draw_panels(panels, height=height))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def panel(*lines: Line, ticks: tuple[int, ...] = SIDES) -> Panel:
    return Panel("title", "pixels", "seconds", lines, ticks)


def has(picture: np.ndarray, colour: str) -> bool:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((picture == wanted).all(axis=2).any())


def test_a_picture_has_the_promised_width() -> None:
    picture = pixels(panel(Line("a", SIDES, (1, 2))))
    assert picture.shape == (450, WIDTH * DPI, 3)


@pytest.mark.parametrize("dashed", [False, True])
def test_lines_have_their_colours_and_those_without_points_stand_in_the_legend(dashed: bool) -> None:
    lines = (
        Line("a", SIDES, (1, 40), COLOURS[1], MARKERS[1], dashed=dashed),
        Line("b", (), (), COLOURS[2], MARKERS[2], dashed=dashed),
    )
    picture = pixels(panel(*lines))
    assert has(picture, COLOURS[1])
    assert has(picture, COLOURS[2])
    assert not has(picture, COLOURS[3])


def test_empty_panels_and_narrow_ranges_are_drawn() -> None:
    assert pixels(
        panel(), panel(Line("a", (), ())), panel(Line("a", (32,), (24.6,)), Line("b", (32,), (24.7,)), ticks=(32,))
    ).size


def test_the_same_panels_give_the_same_file() -> None:
    shown = [panel(Line("a", SIDES, (1, 2)))]
    assert draw_panels(shown) == draw_panels(shown)


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = (
        "import importlib, sys; from vision_longformer.commands.options import COMMANDS\n"
        "for name in COMMANDS: importlib.import_module(f'vision_longformer.commands.{name}')\n"
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_points_stand_alone_where_they_are_not_joined() -> None:
    line = Line("a", SIDES, (1, 40), COLOURS[1], MARKERS[1])
    joined, alone = pixels(panel(line)), pixels(panel(dataclasses.replace(line, joined=False)))
    orange = [int(COLOURS[1][i : i + 2], 16) for i in (1, 3, 5)]
    assert 0 < (alone == orange).all(axis=2).sum() < (joined == orange).all(axis=2).sum() / 1.5


def test_an_axis_may_be_linear_and_have_named_ticks() -> None:
    line = Line("a", SIDES, (76.0, 82.4))
    assert pixels(Panel("title", "milliseconds", "percent", [line], linear=True)).size
    named = pixels(Panel("title", "pixels", "seconds", [line], SIDES, ("7×5", "9×8")))
    assert not np.array_equal(named, pixels(panel(line)))


def test_a_legend_has_as_many_columns_as_its_longest_label_leaves_room_for() -> None:
    short = [panel(*(Line(str(number), (), ()) for number in range(8)))]
    long = [panel(*(Line(f"{number}{'x' * 45}", (), ()) for number in range(8)))]
    assert legend_rows(short) == 2
    assert legend_rows(long) == 4
    assert legend_rows([panel()]) == 0
