"""Embeddings of many images in few files: Parquet, a row for each image, a file for each so many rows.

N images, C channels

A part is named by the images in it, and appears only once it is complete. Encoding the same images again, by however
many processes, replaces it; of an image that was encoded anew the older row goes.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.locks import Lock, LockedError

METADATA_KEY = b"vision_longformer"
MISSING = "writing Parquet needs pyarrow: pip install 'vision-longformer[parquet]'"
ROWS = 1024  # of a part
SECONDS = 60.0  # after which a part is written with fewer rows, so that a killed process loses no more
OWN = ("source", "source_sha256", "source_state", "original_size", "encoded_size")  # of a row; all else is of its part


@dataclass(frozen=True)
class Row:
    """An image in a part.

    Attributes:
        description: See `descriptions.describe`.
        embedding: (C,).
    """

    description: dict[str, Any]
    embedding: Tensor

    @property
    def name(self) -> str:
        """The image's."""
        return _as_text(self.description["source"])


class Parts:
    """The parts in a folder, and a new one that grows.

    Args:
        folder: Of the parts; created if need be.
        wanted: Names of the images that will be asked for; None for all.
        on_written: Called when parts have changed.
    """

    def __init__(
        self,
        folder: Path,
        wanted: Collection[str] | None = None,
        *,
        on_written: Callable[[], None] | None = None,
    ) -> None:
        self._on_written = on_written
        self.folder = folder
        self._rows: list[Row] = []
        self._lock = threading.Lock()  # of `add`, which threads call
        self._begun = time.monotonic()
        asked = None if wanted is None else set(map(_as_text, wanted))
        span = None if not asked else (min(asked), max(asked))
        self._known: dict[str, tuple[Path, dict[str, Any]]] = {}  # where, and the description without the part's
        self._of_parts: dict[Path, dict[str, Any]] = {}
        for path in part_files(folder):
            if span is not None and not _may_have(path, *span):
                continue
            of_part, own = read_descriptions(path)
            self._of_parts[path] = of_part
            for one in own:
                if asked is None or one["source"] in asked:
                    self._known[one["source"]] = (path, one)

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the description of the newest row of an image; None if there is none."""
        found = self._known.get(_as_text(name))
        if found is None:
            return None
        path, own = found
        return {**self._of_parts[path], **own}

    def add(self, row: Row) -> None:
        """Add a row, which is on disk once the part is full, or old, or `write` is called.

        Raises:
            OSError: The part cannot be written.
        """
        with self._lock:
            self._rows.append(row)
            if len(self._rows) >= ROWS or time.monotonic() - self._begun >= SECONDS:
                self.write()

    def write(self) -> None:
        """Write the rows that were added as a part.

        Raises:
            OSError: It cannot be written.
        """
        rows, self._rows, self._begun = self._rows, [], time.monotonic()
        if not rows:
            return
        path = write_part(self.folder, rows)
        names = {row.name for row in rows}
        for other in {self._known[name][0] for name in names if name in self._known} - {path}:
            _remove_rows(other, names)
        if self._on_written is not None:
            self._on_written()


def _as_text(name: str) -> str:
    """Return a name as Parquet takes it: bytes that are no text are written out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def part_files(folder: Path) -> list[Path]:
    """Return the parts in a folder, the oldest first."""
    times = []
    for path in folder.glob("part-*.parquet"):
        try:
            times.append((path.stat().st_mtime_ns, path))
        except FileNotFoundError:  # its rows have just been written anew
            continue
    return [path for _, path in sorted(times)]


def write_part(folder: Path, rows: Iterable[Row]) -> Path:
    """Write rows as one part, sorted by name; return its path."""
    import pyarrow as pa

    rows = sorted(rows, key=lambda row: row.name)
    of_part = {key: value for key, value in rows[0].description.items() if key not in OWN}
    flat = torch.stack([row.embedding for row in rows]).cpu()
    values = pa.array(flat.flatten().numpy())
    columns: dict[str, Any] = {
        "source": pa.array([row.name for row in rows], pa.string()),
        "embedding": pa.FixedSizeListArray.from_arrays(values, flat.shape[1]),
    }
    for axis, side in enumerate(("height", "width")):
        columns[side] = pa.array([row.description["encoded_size"][axis] for row in rows], pa.int32())
        columns[f"original_{side}"] = pa.array([row.description["original_size"][axis] for row in rows], pa.int32())
    for key in ("source_sha256", "source_state"):
        columns[key] = pa.array([row.description[key] for row in rows], pa.string())
    table = pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(of_part)})
    names = hashlib.sha256(json.dumps([row.name for row in rows]).encode()).hexdigest()
    path = folder / f"part-{names[:16]}.parquet"
    _write_table(path, table)
    return path


def _may_have(path: Path, least: str, most: str) -> bool:
    """Tell whether a part can have images with names from `least` to `most`, by the first and last of its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
        column = metadata.schema.names.index("source")
        groups = [metadata.row_group(number).column(column).statistics for number in range(metadata.num_row_groups)]
    except (pa.ArrowException, OSError, ValueError):
        return True  # which reading it will find out
    if not all(group is not None and group.has_min_max for group in groups):
        return True
    return any(group.min <= most and least <= group.max for group in groups)


def read_descriptions(path: Path) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Return what a part says of all its rows, and what it says of each; nothing if it is none of ours, or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["source", "source_sha256", "source_state"], use_threads=False)
        of_part = json.loads((table.schema.metadata or {})[METADATA_KEY])
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return {}, iter(())
    columns = [table.column(name).to_pylist() for name in table.column_names]
    return of_part, (dict(zip(table.column_names, values, strict=True)) for values in zip(*columns, strict=True))


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of many images.

    Attributes:
        names: Of the images, N.
        embeddings: (N, C).
        metadata: What the newest part says of its rows: model, settings, versions.
    """

    names: tuple[str, ...]
    embeddings: Tensor
    metadata: dict[str, Any]


def load_embeddings(folder: str | Path) -> Embeddings:
    """Read all that `vil encode --format parquet` wrote into a folder.

    Raises:
        FileNotFoundError: There are no parts in it.
        ValueError: A part is damaged, or they are of different models.
        ImportError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(MISSING.replace("writing", "reading")) from error
    found: dict[str, NDArray[Any]] = {}
    of_part: dict[str, Any] = {}
    paths = part_files(Path(folder))
    if not paths:
        raise FileNotFoundError(f"{folder}: there are no embeddings (part-*.parquet) in it")
    for path in paths:
        try:
            table = pq.read_table(path, columns=["source", "embedding"])
            newer = json.loads((table.schema.metadata or {})[METADATA_KEY])
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise ValueError(f"{path}: it is damaged, or was not written by `vil encode` ({error})") from error
        for key in ("config_sha256", "weights_sha256", "dtype"):
            if of_part and of_part[key] != newer[key]:
                raise ValueError(f"{path}: it was made with another {key.split('_')[0]} than {paths[0].name}")
        of_part = newer
        column = table.column("embedding").combine_chunks()
        rows = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
        found.update(zip(table.column("source").to_pylist(), rows, strict=True))
    return Embeddings(tuple(found), torch.from_numpy(np.stack(list(found.values()))), of_part)


def _remove_rows(path: Path, names: Collection[str]) -> None:
    """Remove the rows of images from a part; others may do the same to other rows at once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    while True:
        try:
            with Lock(path, wait=True):
                table = pq.read_table(path)
                kept = [name not in names for name in table.column("source").to_pylist()]
                if not any(kept):
                    path.unlink()
                elif not all(kept):
                    _write_table(path, table.filter(pa.array(kept)))
            return
        except LockedError:  # it was replaced meanwhile
            continue
        except FileNotFoundError:
            return


def _write_table(path: Path, table: Any) -> None:
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
