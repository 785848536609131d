"""Features that go to an object store: made in a local folder, which keeps none of them once they are there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from vision_longformer.utils.remote import download, list_files, read_bytes, remove, size_of, upload

PARTS = "part-*.parquet"
HEAD = 1 << 16  # bytes in which a description nearly always ends


class Mirror:
    """A folder by its URL, and the local one in which it is written.

    The store has an object only once it is whole. What was there before a run is seen without reading all of it.

    Args:
        url: Of the folder of features.
        folder: Local, and this run's own.

    Raises:
        OSError: The store cannot be reached.
        ImportError: A package for this kind of URL is missing.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url.rstrip("/"), folder
        self._sent: dict[Path, tuple[int, int]] = {}
        for pattern in (PARTS, ".run/*"):
            with contextlib.suppress(FileNotFoundError):
                for file in list_files(f"{self.url}/{pattern}"):
                    path = (self.folder / pattern).with_name(file.url.rpartition("/")[2])
                    download(file.url, path)
                    self._sent[path] = _mark(path)

    def url_of(self, path: Path) -> str:
        """Return where a file of the local folder goes."""
        return f"{self.url}/{path.relative_to(self.folder).as_posix()}"

    @contextlib.contextmanager
    def outlined(self, path: Path, *, whole: bool) -> Iterator[None]:
        """Have a file that lies in the store in the local folder, as long as the context lasts.

        Args:
            path: Of the local file.
            whole: Whether all of it is wanted; else it has what a safetensors file says of itself, and zeros.
        """
        url = self.url_of(path)
        size = size_of(url)
        if size is None:
            yield
            return
        try:
            if whole:
                download(url, path)
            else:
                head = read_bytes(url, 0, min(HEAD, size))
                end = 8 + int.from_bytes(head[:8], "little")
                if len(head) < end <= size:
                    head += read_bytes(url, len(head), end)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    file.write(head)
                    file.truncate(size)
            yield
        finally:
            path.unlink(missing_ok=True)

    def send(self, path: Path) -> None:
        """Move a file to the store.

        Raises:
            OSError: It cannot be written there.
        """
        upload(path, self.url_of(path))
        path.unlink()

    def send_parts(self) -> None:
        """Copy the parts of Parquet that have changed to the store, then remove those that are gone.

        Raises:
            OSError: They cannot be written there.
        """
        self._send_changed(self.folder.glob(PARTS))
        for path in [path for path in self._sent if path.match(PARTS) and not path.exists()]:
            remove(self.url_of(path))
            del self._sent[path]

    def send_rest(self) -> None:
        """Copy all else that has changed to the store: the page and what is known of the run.

        Raises:
            OSError: It cannot be written there.
        """
        self.send_parts()
        files = [*self.folder.glob("*"), *self.folder.glob(".run/*")]
        self._send_changed([path for path in files if path.is_file()])

    def _send_changed(self, paths: Iterator[Path] | list[Path]) -> None:
        for path in paths:
            mark = _mark(path)
            if self._sent.get(path) != mark:
                upload(path, self.url_of(path))
                self._sent[path] = mark


def _mark(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
