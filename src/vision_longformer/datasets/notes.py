"""What of image files is left out when they are read, such as all pictures but the first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vision_longformer.images import ImageError, Reading, describe_image

LOOKED_AT = 1000  # of many files, evenly spaced


def remarks_on_notes(paths: Sequence[Path], reading: Reading, *, max_pixels: int) -> list[str]:
    """Return a sentence for each thing that files say is left out of them, with the first of these files.

    Args:
        paths: Of all images; the headers of at most `LOOKED_AT` are read.
        reading: How they are read.
        max_pixels: See `open_reader`.
    """
    found: dict[str, list[Path]] = {}
    for place in np.unique(np.linspace(0, len(paths) - 1, min(len(paths), LOOKED_AT)).round().astype(int)):
        try:
            note = describe_image(paths[place], reading=reading, max_pixels=max_pixels).note
        except ImageError:
            continue  # which is said elsewhere
        if note:
            found.setdefault(note, []).append(paths[place])
    among = f" among the {LOOKED_AT:,} looked at" if len(paths) > LOOKED_AT else ""
    return [
        f"{files[0]}{f' and {len(files) - 1:,} more' if len(files) > 1 else ''}{among}: {note}"
        for note, files in found.items()
    ]
