"""A list of images as a CSV file: their paths, and how each of them is read."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vision_longformer.images.open import Reading

SUFFIX = ".csv"
PATH = "path"
SCALES: dict[str, Any] = {"level": 0, "mpp": None, "magnification": None}  # each takes the place of the others
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Asked:
    """What a list says of how an image is read; None where it says nothing.

    Attributes:
        level: See `Reading`, as for the others.
        mpp: Micrometres a pixel.
        magnification: As the power of a microscope's objective.
        tissue: Whether bare glass counts as missing.
    """

    level: int | None = None
    mpp: float | None = None
    magnification: float | None = None
    tissue: bool | None = None

    def on(self, reading: Reading) -> Reading:
        """Return how the image is read, where others are read so.

        Raises:
            ValueError: A number is out of range, or the scale is stated twice.
        """
        asked = {name: value for name, value in vars(self).items() if value is not None}
        return replace(reading, **((SCALES if SCALES.keys() & asked else {}) | asked))


AS_OTHERS = Asked()


def _tissue(text: str) -> bool:
    if text.lower() not in WORDS:
        raise ValueError
    return WORDS[text.lower()]


KINDS: dict[str, tuple[Callable[[str], Any], str]] = {
    "level": (int, "a whole number"),
    "mpp": (float, "a number"),
    "magnification": (float, "a number"),
    "tissue": (_tissue, "yes or no"),
}


def read_list(path: Path, *, remark: Callable[[str], None] = lambda text: None) -> dict[Path, Asked]:
    """Return the images of a list, and how each is read.

    The first row names the columns: path, and any of level, mpp, magnification and tissue. Paths are relative to the
    folder of the list. An empty cell says nothing.

    Args:
        path: Of the list.
        remark: Called with a sentence if there are other columns.

    Raises:
        FileNotFoundError: An image is not there.
        ValueError: The list is no such table; says in which row.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text in UTF-8, as a list of images is") from error
    first = text.partition("\n")[0]
    rows = csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=first.count), skipinitialspace=True)
    columns = [name.strip() for name in rows.fieldnames or ()]
    if PATH not in columns:
        raise ValueError(
            f"{path}: a list of images has a column {PATH}, and may have {', '.join(KINDS)}; this has none"
        )
    if others := [name for name in columns if name not in (PATH, *KINDS)]:
        remark(f"{path}: passed over the columns {', '.join(others)}; those of a list are {PATH}, {', '.join(KINDS)}")
    rows.fieldnames = columns
    found: dict[Path, Asked] = {}
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        if not (name := (row[PATH] or "").strip()):
            raise ValueError(f"{where}: it names no image in the column {PATH}")
        image = Path(os.path.abspath(path.parent / name))
        if not os.path.lexists(image):
            raise FileNotFoundError(f"{where}: there is no image {image}")
        if image in found:
            raise ValueError(f"{where}: {image} is in the list twice")
        found[image] = _asked(row, where)
    if not found:
        raise ValueError(f"{path}: lists no image")
    return found


def _asked(row: Mapping[str, str | None], where: str) -> Asked:
    values: dict[str, Any] = {}
    for name, (kind, words) in KINDS.items():
        if text := (row.get(name) or "").strip():
            try:
                values[name] = kind(text)
            except ValueError as error:
                raise ValueError(f"{where}: {name}={text}: must be {words}") from error
    asked = Asked(**values)
    try:
        asked.on(Reading())
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return asked
