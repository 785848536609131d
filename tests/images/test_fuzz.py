"""Files that were damaged at random are read, or refused by a sentence: nothing else comes out of any door."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from images.damage import damaged, originals
from vision_longformer.images import ImageError, describe_image, open_reader, read_pixels

CALLS = 64_000  # of the long form
MAX_PIXELS = 10**6  # whatever a damaged header says


def read_some_rows(path: Path) -> None:
    with closing(open_reader(path, max_pixels=MAX_PIXELS)) as reader:
        rows = min(reader.info.height, 9)
        if rows * reader.info.width * reader.info.channels <= MAX_PIXELS:
            reader.read_rows(0, rows)


DOORS: list[Callable[[Path], Any]] = [
    lambda path: read_pixels(path, max_pixels=MAX_PIXELS),
    read_some_rows,
    lambda path: describe_image(path, max_pixels=MAX_PIXELS),
]


def refusal(read: Callable[[Path], Any], path: Path) -> str | None:
    """Return why a file is refused; None if it is read."""
    try:
        read(path)
    except ImageError as error:
        return str(error)
    return None


@pytest.mark.filterwarnings("ignore")  # of decoders, about damaged files
@pytest.mark.parametrize("calls", [600, pytest.param(CALLS, marks=pytest.mark.long)])
def test_damaged_files_are_read_or_refused_by_a_sentence_that_names_them(tmp_path: Path, calls: int) -> None:
    pytest.importorskip("rasterio")
    files, rng, ends = originals(), random.Random(calls), Counter[str]()
    names = list(files)
    for number in range(-(-calls // len(DOORS))):
        path = tmp_path / names[number % len(names)]
        path.write_bytes(damaged(files[path.name], rng))
        for read in DOORS:
            sentence = refusal(read, path)
            assert sentence is None or (sentence.startswith(f"{path}: ") and "\n" not in sentence), sentence
            ends["read" if sentence is None else "refused"] += 1
    assert ends["refused"] > calls / 10
    assert ends["read"] > calls / 10


@pytest.mark.filterwarnings("ignore")
def test_undamaged_ones_are_read(tmp_path: Path) -> None:
    for name, data in originals().items():
        (tmp_path / name).write_bytes(data)
        assert read_pixels(tmp_path / name, max_pixels=MAX_PIXELS).valid.any()
