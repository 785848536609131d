"""What may go wrong with an image or with writing its features, as sentences."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from vision_longformer.images import ImageError


class OutputError(OSError):
    """Features cannot be written; going on makes no sense."""


def reason_of(error: Exception, path: Path) -> str | None:
    """Return a sentence for what may go wrong with an image; None for what may not."""
    prefix = f"{path}: "
    if isinstance(error, ImageError):
        return str(error).removeprefix(prefix)
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    text = str(error)
    if is_memory_error(error):
        return "there is not enough memory to encode it: shrink it with max_side (--max-side)"
    return text if isinstance(error, ValueError) else None


def is_memory_error(error: Exception) -> bool:
    """Tell whether memory ran out."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def explaining(target: Path | str) -> Iterator[None]:
    """Turn what may go wrong in writing `target` into an `OutputError`."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise OutputError(f"{target}: the disk is full; make room and run again to go on") from error
        raise OutputError(f"{target}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
