"""Images that are bytes in memory, of every kind that files can be of."""

from __future__ import annotations

import dataclasses
import io
import os
import tempfile
from pathlib import Path

from vision_longformer.images.open import open_reader
from vision_longformer.images.reader import MAX_PIXELS, ImageError, PixelRows

NAME = "the image"


class BytesReader:
    """Reads the bytes of an image's file, which lie in a temporary file until it is closed: many readers need one.

    Args:
        image: The bytes, all of them, wherever it stands; it stays as it is.
        max_pixels: See `open_reader`.
        upright: See `open_reader`.

    Raises:
        ImageError: It is no image, or a damaged one.
    """

    def __init__(self, image: io.BytesIO, *, max_pixels: int = MAX_PIXELS, upright: bool = True) -> None:
        descriptor, name = tempfile.mkstemp(prefix="vision_longformer-")
        self._path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(image.getbuffer())
            self._reader = open_reader(self._path, max_pixels=max_pixels, upright=upright)
        except ImageError as error:
            self._path.unlink(missing_ok=True)
            raise ImageError(self._named(error)) from error
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise
        self.info = dataclasses.replace(self._reader.info, name=NAME)

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        """Return rows `top` to `bottom`. See `Reader`."""
        try:
            return self._reader.read_rows(top, bottom)
        except ImageError as error:
            raise ImageError(self._named(error)) from error

    def close(self) -> None:
        """Close and remove the temporary file."""
        self._reader.close()
        self._path.unlink(missing_ok=True)

    def _named(self, error: ImageError) -> str:
        return str(error).replace(str(self._path), NAME)
