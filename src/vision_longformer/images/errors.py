"""The one place that turns whatever reading a file raises into `ImageError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import UnidentifiedImageError

from vision_longformer.images.reader import ImageError, PixelRows, Reader, Window, read_window

LONGEST_REASON = 300


@contextmanager
def image_errors(name: str, kind: str = "") -> Iterator[None]:
    """Turn all that reading an image can raise into `ImageError`, whose message begins with the image's name.

    Decoders raise exceptions of any class for damaged files: none is left out.

    Args:
        name: For the message.
        kind: What the file is not, if it cannot be read; "" where it is known to be of its kind.
    """
    try:
        yield
    except ImageError as error:
        if str(error).startswith(name):
            raise
        raise type(error)(f"{name}: {error}") from error
    except ImportError as error:
        raise ImageError(str(error) if str(error).startswith(name) else f"{name}: {error}") from error
    except Exception as error:
        raise ImageError(f"{name}: {_reason(error, kind)}") from error


def _reason(error: Exception, kind: str) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image that can be read"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror[0].lower()}{error.strerror[1:]}"
    said = " ".join(str(error).split()) or type(error).__name__
    said = said if len(said) <= LONGEST_REASON else f"{said[:LONGEST_REASON]}..."
    if kind:
        return f"it is no {kind}, or a damaged one ({said})"
    return f"it is damaged or cut short ({said})" if isinstance(error, OSError) else f"it is damaged ({said})"


class GuardedReader:
    """Reads another reader's image, and raises nothing but `ImageError`.

    Attributes:
        reader: That one.
        info: See `Reader`.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader, self.info = reader, reader.info

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        """Return rows `top` to `bottom`. See `Reader`."""
        with image_errors(self.info.name):
            return self.reader.read_rows(top, bottom)

    def read_window(self, window: Window) -> PixelRows:
        """Return a part of the image. See `reader.read_window`."""
        with image_errors(self.info.name):
            return read_window(self.reader, window)

    def close(self) -> None:
        """Close the file."""
        self.reader.close()
