"""Features that go to an object store: made in a local folder, which keeps none of them once they are there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from vision_longformer.features.formats.zarr_folder import DESCRIPTION
from vision_longformer.utils.remote import (
    RemoteFile,
    download,
    list_files,
    read_bytes,
    remove,
    size_of,
    upload,
    whole_url,
)

ZARR = ".zarr"
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
        """Have a file, or a folder in Zarr, that lies in the store in the local folder, as long as the context lasts.

        Args:
            path: Of the local one.
            whole: Whether all of it is wanted; else it has what a safetensors file or a folder says of itself, and
                zeros.
        """
        try:
            if path.suffix == ZARR:
                self._outline_folder(path, whole=whole)
            else:
                self._outline_file(path, whole=whole)
            yield
        finally:
            _remove_local(path)

    def _outline_file(self, path: Path, *, whole: bool) -> None:
        url = self.url_of(path)
        size = size_of(url)
        if size is None:
            return
        if whole:
            download(url, path)
            return
        head = read_bytes(url, 0, min(HEAD, size))
        end = 8 + int.from_bytes(head[:8], "little")
        if len(head) < end <= size:
            head += read_bytes(url, len(head), end)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(head)
            file.truncate(size)

    def _outline_folder(self, path: Path, *, whole: bool) -> None:
        if size_of(f"{self.url_of(path)}/{DESCRIPTION}") is None:
            return
        for file, name in self._files(path):
            if whole or name.endswith(DESCRIPTION):  # of the folder and of each array
                download(file.url, path / name)
            else:
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                with (path / name).open("wb") as local:
                    local.truncate(file.size or 0)

    def _files(self, folder: Path) -> list[tuple[RemoteFile, str]]:
        """Return what the store has of a folder, and the names below it."""
        url = whole_url(self.url_of(folder))
        try:
            return [(file, file.url.removeprefix(f"{url}/")) for file in list_files(url)]
        except FileNotFoundError:
            return []

    def send(self, path: Path) -> None:
        """Move a file, or a folder in Zarr, to the store, which has no description of the folder until all is there.

        Raises:
            OSError: It cannot be written there.
        """
        if path.is_dir():
            url = self.url_of(path)
            remove(f"{url}/{DESCRIPTION}")
            names = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
            for file, name in self._files(path):
                if name not in names:  # of an earlier run
                    remove(file.url)
            for name in sorted(names - {DESCRIPTION}):
                upload(path / name, f"{url}/{name}")
            upload(path / DESCRIPTION, f"{url}/{DESCRIPTION}")
        else:
            upload(path, self.url_of(path))
        _remove_local(path)

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


def _remove_local(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _mark(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
