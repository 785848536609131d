"""What changes with the contents of an image."""

from __future__ import annotations

import hashlib
from pathlib import Path


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files of a folder and their names.

    Raises:
        OSError: It cannot be read.
    """
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    of_all = hashlib.sha256()
    for inside in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        of_all.update(
            f"{inside.relative_to(path).as_posix()} {content_digest(inside)}\n".encode("utf-8", "surrogateescape")
        )
    return of_all.hexdigest()
