"""How many objects are given of an image at most: the more, the larger it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vision_longformer.detection.config import MOST_DETECTIONS
from vision_longformer.padding import Size
from vision_longformer.training.trained import Trained

PIXELS = 10**6  # of the largest image for which a model's own limit is meant
DENSE = 50_000  # objects up to which an image may have as many as the images of training, for its pixels
ASPECT = 4 / 3  # of the images of training, where only their shorter side is known


@dataclass(frozen=True)
class Limits:
    """Lets a detector find as many objects in a large image as it may in the smaller ones that it learned from.

    Attributes:
        model: The detector.
        own: Its settings, as it was trained.
        pixels: Of an image for which their limit is meant. A larger one has room for as many on each such part of
            it, up to `DENSE`, and always for as many on each megapixel.
    """

    model: Any
    own: Any
    pixels: int = PIXELS

    def most(self, size: Size) -> int:
        """Return the most objects of an image of (height, width) `size`, as the model sees it."""
        own, pixels = self.own.detections, size[0] * size[1]
        of_parts = min(DENSE, -(-own * pixels // self.pixels))
        of_megapixels = min(MOST_DETECTIONS, -(-own * pixels // PIXELS))
        return int(max(own, of_parts, of_megapixels))

    @contextlib.contextmanager
    def __call__(self, size: Size) -> Iterator[None]:
        """Let the detector give as many objects as an image of (height, width) `size` may have; then as before."""
        before = self.model.config
        self.model.set_limits(self.own.with_detections(self.most(size)))
        try:
            yield
        finally:
            self.model.set_limits(before)


def limits_of(trained: Trained) -> Limits | None:
    """Return the limits of a detector by the images that it learned from; None where no objects are found."""
    if trained.gives != "objects":
        return None
    preprocessing = trained.preprocessing
    areas = [preprocessing[name] ** 2 for name in ("crop", "window") if name in preprocessing]
    if preprocessing["side"] is not None:
        areas.append(round(ASPECT * preprocessing["side"] ** 2))
    model: Any = trained.model
    return Limits(model, model.config, min([PIXELS, *areas]))
