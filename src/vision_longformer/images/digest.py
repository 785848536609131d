"""What changes with the contents of an image."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vision_longformer.images.reader import check_file


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files of a folder and their names.

    Raises:
        OSError: It cannot be read.
        ImageError: It is a pipe or a device, of which nothing may ever come.
    """
    if not path.is_dir():
        check_file(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    of_all = hashlib.sha256()
    for inside in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        of_all.update(
            f"{inside.relative_to(path).as_posix()} {content_digest(inside)}\n".encode("utf-8", "surrogateescape")
        )
    return of_all.hexdigest()
