"""Images by URL. Of a TIFF, and of an array in Zarr, only what is asked for is fetched; any other file is, as a whole.

A TIFF with a mask or a value for missing pixels is fetched as a whole too, as GDAL reads it. Where on earth a TIFF lies
is not read.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from vision_longformer.images.errors import image_errors
from vision_longformer.images.open import SLIDE_SUFFIXES, TIFF_STARTS
from vision_longformer.images.reader import (
    ImageError,
    PixelRows,
    Reader,
    UnsupportedError,
    Window,
    read_window,
)
from vision_longformer.images.tiff import TiffReader, read_header
from vision_longformer.images.zarr import open_zarr
from vision_longformer.utils.remote import RemoteFile, find_file, local_copy, open_file, read_bytes


def open_remote(
    url: str, open_copy: Callable[[Path], Reader], *, level: int = 0, array: str | None = None, max_pixels: int
) -> Reader:
    """Open an image by its URL, as it is stored.

    Args:
        url: Of a file, or of the folder of a Zarr array.
        open_copy: Opens what was fetched as a whole.
        level: See `open_reader`, as for the others.
        array: Of a Zarr group.
        max_pixels: Of what is decoded at once.

    Raises:
        ImageError: It cannot be reached, or read.
    """
    with _explaining(url):
        file = find_file(url)
        if file is None:
            return open_zarr(url, array=array, max_pixels=max_pixels)
        is_slide = url.lower().endswith(SLIDE_SUFFIXES)  # of which OpenSlide reads files alone
        if not is_slide and read_bytes(url, 0, len(TIFF_STARTS[0])).startswith(TIFF_STARTS):
            with contextlib.suppress(UnsupportedError):
                return _open_tiff(url, file.state, level=level, max_pixels=max_pixels)
        return CopiedReader(url, file, open_copy)


def _open_tiff(url: str, state: str, *, level: int, max_pixels: int) -> Reader:
    file = open_file(url)
    try:
        header = read_header(file)
        if header.masked or header.nodata:
            raise UnsupportedError("GDAL reads it")
        file.seek(0)
        reader = TiffReader(url, level=level, max_pixels=max_pixels, file=file)
    except BaseException:
        file.close()
        raise
    reader.info = dataclasses.replace(reader.info, identity=state)
    return reader


class CopiedReader:
    """Reads a copy of a file, which is removed when it is closed.

    Args:
        url: Of the file.
        file: What is known of it.
        open_copy: Opens the copy.

    Raises:
        ImageError: It is no image, or a damaged one.
        OSError: It cannot be copied.
    """

    def __init__(self, url: str, file: RemoteFile, open_copy: Callable[[Path], Reader]) -> None:
        with contextlib.ExitStack() as stack:
            self._path, self._url = stack.enter_context(local_copy(file)), url
            with self._named():
                self._reader = open_copy(self._path)
            stack.callback(self._reader.close)
            self._copy = stack.pop_all()
        self.orientation = getattr(self._reader, "orientation", 1)
        self.info = dataclasses.replace(self._reader.info, name=url, identity=file.state)

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        """Return rows `top` to `bottom`. See `Reader`."""
        with self._named():
            return self._reader.read_rows(top, bottom)

    def read_window(self, window: Window) -> PixelRows:
        """Return a part of the image. See `reader.read_window`."""
        with self._named():
            return read_window(self._reader, window)

    def close(self) -> None:
        """Close and remove the copy."""
        self._copy.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except ImageError as error:
            raise ImageError(str(error).replace(str(self._path), self._url)) from error


@contextlib.contextmanager
def _explaining(url: str) -> Iterator[None]:
    """Say what was wrong with reaching an image."""
    try:
        with image_errors(url):
            yield
    except ImageError as error:
        cause = error.__cause__
        if isinstance(cause, OSError):
            raise ImageError(str(cause) if str(cause).startswith(url) else f"{url}: {cause}") from error
        raise
