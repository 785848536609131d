"""A file that notes what goes wrong in writing it, for libraries that would hide it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")


class NotingFile(io.RawIOBase):
    """A binary file; after an error it takes everything and keeps nothing.

    Args:
        path: Of the file.
        mode: As `open` takes it.
        errors: Where errors are noted.
    """

    def __init__(self, path: str | os.PathLike[str], mode: str, errors: list[OSError]) -> None:
        self._file = Path(path).open(mode if "b" in mode else f"{mode}b")  # noqa: SIM115, closed by `close`
        self._errors = errors

    def readable(self) -> bool:
        """Return true."""
        return True

    def writable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return bytes from where the file stands."""
        return self._noting(lambda: self._file.read(size), b"")

    def write(self, data: Any) -> int:
        """Write bytes; return how many."""
        return self._noting(lambda: self._file.write(data), memoryview(data).nbytes)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._noting(lambda: self._file.seek(offset, whence), offset)

    def tell(self) -> int:
        """Return where the file stands."""
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        """Cut the file."""
        return self._noting(lambda: self._file.truncate(size), size or 0)

    def flush(self) -> None:
        """Hand all that was written to the system."""
        self._noting(self._flush, None)

    def close(self) -> None:
        """Close the file."""
        self._noting(self._close, None)
        super().close()

    def _flush(self) -> None:
        if not self._file.closed:
            self._file.flush()

    def _close(self) -> None:
        if not self._file.closed:
            self._file.close()

    def _noting(self, work: Callable[[], Result], otherwise: Result) -> Result:
        try:
            return work()
        except OSError as error:
            self._errors.append(error)
            return otherwise
