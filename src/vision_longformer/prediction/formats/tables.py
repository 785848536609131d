"""Tables of a run: CSV files that spreadsheets open, and Parquet for large ones.

`objects` has a row for each object, `classes` one for each class of pixels of an image, `images` one for each image.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vision_longformer.utils.atomic_files import replacing

Row = dict[str, Any]
Rows = Callable[[], Iterable[Row]]  # gives them anew each time
GROUP = 20_000  # rows of Parquet that are in memory at once
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")
MISSING = "writing Parquet needs pyarrow: pip install 'vision-longformer[tables]'"


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Return the names of all columns, in the order in which they first occur."""
    found: dict[str, None] = {}
    for row in rows:
        found.update(dict.fromkeys(row))
    return list(found)


def write_csv(path: Path, rows: Rows, *, columns: Sequence[str] = ()) -> None:
    """Write a table, all of it or nothing.

    Text that a spreadsheet would take for a formula has an apostrophe before it, as OWASP advises ("CSV injection").

    Args:
        path: The file.
        rows: Gives the rows, twice.
        columns: That the table has even without rows; others follow as they occur.

    Raises:
        OSError: It cannot be written.
    """
    names = columns_of(itertools.chain([dict.fromkeys(columns)], rows()))
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="", errors="surrogateescape") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(map(safe, names))
        for row in rows():
            writer.writerow([safe(row.get(name)) for name in names])


def safe(value: Any) -> Any:
    """Return what a spreadsheet shows as the text that it is; lines of text end as those of the file."""
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # Python leaves a lone one without quotes
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def write_parquet(path: Path, rows: Rows, *, columns: Sequence[str] = ()) -> None:
    """Write a table, as `write_csv` does, with its values as they are.

    Raises:
        ImportError: pyarrow is not installed.
        OSError: It cannot be written.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(MISSING) from error
    kinds: dict[str, Any] = dict.fromkeys(columns)
    for row in rows():
        for name, value in row.items():
            if kinds.get(name) is None or isinstance(value, float):
                kinds[name] = None if value is None else type(value)
    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    schema = pyarrow.schema([(name, types.get(kind, pyarrow.string())) for name, kind in kinds.items()])
    with replacing(path) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
        for group in _groups(rows()):
            columns_of_group = {name: [_storable(row.get(name)) for row in group] for name in kinds}
            writer.write_table(pyarrow.table(columns_of_group, schema=schema))


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while group := list(itertools.islice(iterator, GROUP)):
        yield group


def _storable(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
