"""Whether stored values fill the range of their type, which a model sees as black to white."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from vision_longformer.images import ImageError, Reading, open_reader

SAMPLED = 8  # images
ROWS = 512  # of each
FULL = 2**16 - 1
DARK = FULL // 4


def remark_on_range(paths: Sequence[Path], reading: Reading, *, max_pixels: int) -> str:
    """Return a sentence if images of 16 bits use a small part of them, as those of cameras with 12 do; else "".

    Args:
        paths: Of all images; a few are looked at.
        reading: How they are read.
        max_pixels: See `open_reader`.
    """
    if reading.value_range is not None or not paths:
        return ""
    largest = 0
    for place in sorted({round(number) for number in np.linspace(0, len(paths) - 1, SAMPLED)}):
        try:
            with closing(open_reader(paths[place], **vars(reading), max_pixels=max_pixels)) as reader:
                if reader.info.dtype != np.uint16:
                    return ""
                top = max(0, reader.info.height - ROWS) // 2
                values, _ = reader.read_rows(top, min(reader.info.height, top + ROWS))
        except ImageError:
            continue  # which is said elsewhere
        largest = max(largest, int(values.max()))
    if not 0 < largest <= DARK:
        return ""
    return (
        f"the images have 16 bits, and no value above {largest:,} of {FULL:,} in {SAMPLED} of them: the model sees "
        f"them almost black. Say what is white, for example with --value-range 0 {2 ** largest.bit_length() - 1}"
    )
