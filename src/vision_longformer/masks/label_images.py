"""Label images: one whole number for each object, 0 where there is none.

H×W image, n objects of it
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision_longformer.masks.run_lengths import Runs


class LabelledObjects(NamedTuple):
    """The objects of a label image, in the order of their numbers.

    Attributes:
        numbers: (n,) as the image has them.
        boxes: (n, 4) x1, y1, x2, y2 in pixels, the tightest.
        areas: (n,) in pixels.
        runs: Of each object's mask; see `run_lengths`.
    """

    numbers: NDArray[np.int64]
    boxes: NDArray[np.int64]
    areas: NDArray[np.int64]
    runs: list[Runs]


def objects_of(labels: NDArray[np.generic]) -> LabelledObjects:
    """Return the objects of a label image (H, W), in time that goes with its pixels, not with objects times pixels.

    Pixels of one number are one object, also where they do not touch.
    """
    height = labels.shape[0]
    flat = labels.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.concatenate([starts[1:], [flat.size]])
    numbers = flat[starts].astype(np.int64)
    order = np.argsort(numbers, kind="stable")
    order = order[numbers[order] != 0]
    numbers, starts, ends = numbers[order], starts[order], ends[order]  # of runs, object by object
    first = np.flatnonzero(np.concatenate([[True], numbers[1:] != numbers[:-1]])) if numbers.size else numbers
    if not first.size:
        return LabelledObjects(numbers, np.zeros((0, 4), np.int64), numbers, [])
    left, right = starts // height, (ends - 1) // height
    one_column = left == right  # else the run goes over the lower edge into the next column
    top = np.where(one_column, starts % height, 0)
    bottom = np.where(one_column, (ends - 1) % height, height - 1)
    low, high = np.minimum.reduceat, np.maximum.reduceat
    boxes = np.stack([low(left, first), low(top, first), high(right, first) + 1, high(bottom, first) + 1], axis=1)
    areas = np.add.reduceat(ends - starts, first)
    edges = np.stack([starts, ends], axis=1)
    runs = [_runs(part.ravel(), flat.size) for part in np.split(edges, first[1:])]
    return LabelledObjects(numbers[first], boxes, areas, runs)


def _runs(edges: NDArray[np.int64], pixels: int) -> Runs:
    """Return runs from where each run of ones starts and ends."""
    rest = [pixels] if edges[-1] < pixels else []
    return np.diff(np.concatenate([[0], edges, rest])).astype(np.uint32)
