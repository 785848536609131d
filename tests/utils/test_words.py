from __future__ import annotations

import pytest

from vision_longformer.utils.words import counted, duration, percent, visible


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3599, "1 h 0 min"), (9000, "2 h 30 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "noun", "text"), [(1, "class", "1 class"), (1200, "class", "1,200 classes"), (0, "image", "0 images")]
)
def test_counts(count: int, noun: str, text: str) -> None:
    assert counted(count, noun) == text


@pytest.mark.parametrize(("count", "total", "text"), [(1, 3, "33.3%"), (1, 30_000, "0.00%"), (0, 0, "–")])
def test_shares(count: int, total: int, text: str) -> None:
    assert percent(count, total) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Wörter, 漢字.png", "Wörter, 漢字.png"),
        ("\x1b[31mred\x07.png", "\\x1b[31mred\\x07.png"),
        ("two\nlines", "two\\nlines"),
        ("\udcff.png", "\\udcff.png"),
        ("\u202egnp.a", "\\u202egnp.a"),
    ],
)
def test_control_characters_are_visible(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(f"a\n{text}", keep="\n") == "a\n" + visible(text, keep="\n")
