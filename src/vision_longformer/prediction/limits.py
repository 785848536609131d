"""How many objects are given of an image at most: the more, the larger it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from vision_longformer.detection.config import MOST_DETECTIONS
from vision_longformer.padding import Size

PIXELS = 10**6  # of an image for which a model's own limit is meant


def limit_for(limit: int, size: Size) -> int:
    """Return the most objects of an image of (height, width) `size`.

    Args:
        limit: The model's own, for an image of a megapixel at most; a larger one gives as many for each megapixel.
        size: Of the image.
    """
    return min(max(limit, -(-limit * size[0] * size[1] // PIXELS)), max(limit, MOST_DETECTIONS))


@contextlib.contextmanager
def limited(model: Any, size: Size) -> Iterator[None]:
    """Let a detector give as many objects as an image of (height, width) `size` may have; then as before."""
    config = model.config
    model.set_detections(limit_for(config.detections, size))
    try:
        yield
    finally:
        model.set_limits(config)
