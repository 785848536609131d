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


LONGEST_REASON = 300


def reason_of(error: Exception, path: Path) -> str:
    """Return a sentence for what went wrong with an image; for what never should, one that asks to report it.

    Whatever it is: one image ends no run of many.
    """
    prefix = f"{path}: "
    if isinstance(error, ImageError):
        return str(error).removeprefix(prefix)
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    if is_memory_error(error):
        return "there is not enough memory for it: shrink it with max_side (--max-side)"
    if isinstance(error, ValueError):  # all of this package's are sentences
        return str(error).removeprefix(prefix)
    said = " ".join(str(error).split())[:LONGEST_REASON]
    return f"(internal error: {type(error).__name__}: {said}; please report it)"


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
