"""Files in object stores and on servers, by URL (s3://, gs://, https://, file://, memory://), through fsspec.

What is read is a copy in a temporary file, which is removed after use. What is written appears once it is complete:
object stores show an object when its last byte has come, and in folders a file is renamed when it is whole. What fails
for a while (a server that is busy, a connection that breaks) is tried again, each time after a longer wait.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from vision_longformer.utils.system_memory import gigabytes

Found = TypeVar("Found")

MISSING = "URLs need fsspec and tenacity, and s3fs or gcsfs for S3 or GCS: pip install 'vision-longformer[remote]'"
TRIES = 5
BLOCK = 1 << 16  # bytes
LONGEST_WAIT = 20.0  # seconds
FREE_DISK = 2**30  # bytes that a copy leaves
# What does not go away by waiting.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_STAMPS = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created")  # what stores say that changes with a file


@dataclass(frozen=True)
class RemoteFile:
    """A file elsewhere.

    Attributes:
        url: With its protocol.
        size: In bytes; None where the server does not say.
        state: Changes when the file does; "" where the server says nothing that does.
    """

    url: str
    size: int | None = None
    state: str = ""


def is_url(text: str | os.PathLike[str]) -> bool:
    """Tell whether a text is a URL, and no path."""
    return isinstance(text, str) and _URL.match(text) is not None


def list_files(url: str) -> list[RemoteFile]:
    """Return the files that a URL means, sorted: one, all below a folder, or those that a pattern fits.

    Raises:
        FileNotFoundError: There is none.
        OSError: The store cannot be reached.
        ImportError: A package for this kind of URL is missing.
    """
    store, path = _open(url)
    store.invalidate_cache()  # of listings

    def find() -> list[RemoteFile]:
        if any(sign in path for sign in "*?["):
            found = store.glob(path, detail=True)
        elif store.isfile(path):
            found = {path: store.info(path)}
        else:
            found = store.find(path, detail=True)
        return [_file(store, name, info) for name, info in found.items() if info.get("type") != "directory"]

    files = sorted(_persistent(url, find), key=lambda file: file.url)
    if not files:
        raise FileNotFoundError(f"{url}: there is no such file or folder")
    return files


def find_file(url: str) -> RemoteFile | None:
    """Return what is known of a file; None of a folder.

    Raises:
        FileNotFoundError: There is neither.
        OSError: The store cannot be reached.
        ImportError: A package for this kind of URL is missing.
    """
    store, path = _open(url)
    store.invalidate_cache()
    info = _persistent(url, lambda: store.info(path))
    return None if info.get("type") == "directory" else _file(store, path, info)


def whole_url(url: str) -> str:
    """Return a URL as `list_files` writes those of files."""
    store, path = _open(url)
    return str(store.unstrip_protocol(path)).rstrip("/")


@contextlib.contextmanager
def local_copy(file: RemoteFile) -> Iterator[Path]:
    """Copy a file to disk, with its own suffix, for as long as the context lasts.

    Raises:
        OSError: It cannot be read, or the disk has no room for it.
    """
    with tempfile.TemporaryDirectory(prefix="vision_longformer-") as folder:
        free = shutil.disk_usage(folder).free
        if file.size is not None and file.size > free - FREE_DISK:
            raise OSError(
                f"it takes {gigabytes(file.size)}, and the disk of temporary files ({folder}) has "
                f"{gigabytes(free)} left: set TMPDIR to a folder on a larger one"
            )
        target = Path(folder) / (file.url.rstrip("/").rpartition("/")[2] or "image")
        download(file.url, target)
        yield target


def download(url: str, target: Path) -> None:
    """Copy a file to a path.

    Raises:
        OSError: It cannot be read or written.
    """
    store, path = _open(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    _persistent(url, lambda: store.get_file(path, str(target)))


def read_bytes(url: str, start: int, end: int) -> bytes:
    """Return some bytes of a file; fewer where it ends before.

    Raises:
        OSError: They cannot be read.
    """
    store, path = _open(url)
    return bytes(_persistent(url, lambda: store.cat_file(path, start=start, end=end)))


def open_file(url: str) -> BinaryIO:
    """Open a file, of which only what is read is fetched, and what follows up to `BLOCK`.

    Raises:
        OSError: It cannot be opened.
    """
    store, path = _open(url)
    file: BinaryIO = _persistent(url, lambda: store.open(path, "rb", block_size=BLOCK, cache_type="readahead"))
    return file


def upload(source: Path, url: str) -> None:
    """Copy a file to a URL, where it appears, or replaces another, once all of it is there.

    Raises:
        OSError: It cannot be written.
    """
    store, path = _open(url)

    def put() -> None:
        if not _is_local(store):
            store.put_file(str(source), path)
            return
        beside = f"{path}.{os.getpid()}.tmp"
        store.makedirs(path.rpartition("/")[0], exist_ok=True)
        try:
            store.put_file(str(source), beside)
            os.replace(beside, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)

    _persistent(url, put)


def remove(url: str) -> None:
    """Remove a file, unless it is gone already.

    Raises:
        OSError: It cannot be removed.
    """
    store, path = _open(url)
    with contextlib.suppress(FileNotFoundError):
        _persistent(url, lambda: store.rm_file(path))


def size_of(url: str) -> int | None:
    """Return the size of a file in bytes; None if there is none.

    Raises:
        OSError: The store cannot be reached.
    """
    store, path = _open(url)
    try:
        store.invalidate_cache()
        return int(_persistent(url, lambda: store.info(path))["size"])
    except FileNotFoundError:
        return None


def _file(store: Any, path: str, info: dict[str, Any]) -> RemoteFile:
    size = info.get("size")
    stamp = next((str(info[key]) for key in _STAMPS if info.get(key)), "")
    return RemoteFile(store.unstrip_protocol(path), size, f"{size}:{stamp}" if stamp and size is not None else "")


def _is_local(store: Any) -> bool:
    return "file" in ((store.protocol,) if isinstance(store.protocol, str) else store.protocol)


def _open(url: str) -> tuple[Any, str]:
    """Return the store of a URL, and its path there."""
    try:
        import fsspec.core
        import tenacity  # noqa: F401

        store, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ImportError(f"{url}: {MISSING} ({error})") from error
    except ValueError as error:
        raise FileNotFoundError(f"{url}: {error}") from error
    return store, str(path)


def _persistent(url: str, act: Callable[[], Found]) -> Found:
    """Do something, more than once if need be; what fails at last is an `OSError` that names the URL."""
    import tenacity

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_not_exception_type(_FINAL),
        stop=tenacity.stop_after_attempt(TRIES),
        wait=tenacity.wait_random_exponential(multiplier=0.25, max=LONGEST_WAIT),
        reraise=True,
    )
    try:
        return retrying(act)
    except _FINAL as error:
        raise type(error)(f"{url}: {error}") from error
    except Exception as error:  # stores have classes of their own
        raise OSError(f"{url}: {error or type(error).__name__}") from error
