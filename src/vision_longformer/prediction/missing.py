"""What is said of pixels that an image does not have: no class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_longformer.images.reader import Mask


def without_missing(labels: NDArray[Any], valid: Mask | None, classes: int) -> NDArray[Any]:
    """Give pixels that the image does not have the largest value, in a type in which no class has it."""
    if valid is None:
        return labels
    if classes > np.iinfo(labels.dtype).max:
        labels = labels.astype(np.uint16)
    return np.where(valid, labels, np.iinfo(labels.dtype).max).astype(labels.dtype)
