"""Which files a folder of features consists of, so that one that is missing or damaged is noticed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vision_longformer.utils.digests import digest_file

Files = dict[str, list[Any]]  # bytes and digest of each file, by its path with slashes


def list_files(folder: Path, *, without: str) -> Files:
    """Return all files below a folder but the one that is to hold the list."""
    return {name: [size, digest_file(folder / name)] for name, size in sorted(_sizes(folder)) if name != without}


def check_files(folder: Path, files: Mapping[str, Any], *, without: str, contents: bool = False) -> None:
    """Compare a folder with the list of its files.

    Args:
        folder: The folder.
        files: From `list_files`.
        without: The file that holds the list.
        contents: Whether to read every file; else only those that say what the others are.

    Raises:
        ValueError: A file is missing, new or damaged; names it.
    """
    found = dict(_sizes(folder))
    found.pop(without, None)
    for name in sorted(found.keys() ^ files.keys()):
        raise ValueError(f"{folder / name}: {'is missing' if name in files else 'does not belong there'}")
    for name, (size, expected) in files.items():
        read = contents or name.endswith("zarr.json")
        if found[name] != size or (read and digest_file(folder / name) != expected):
            raise ValueError(f"{folder / name}: is damaged")


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            yield path.relative_to(folder).as_posix(), path.stat().st_size
