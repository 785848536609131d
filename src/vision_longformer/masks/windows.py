"""Masks in a window of their image, from run lengths or polygons: memory goes with the window, not with the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vision_longformer.images.reader import Window
from vision_longformer.masks.rle import Mask, polygon_runs
from vision_longformer.utils.flat import Segmentations


def segmentation_in_window(segmentations: Segmentations, index: int, *, height: int, window: Window) -> Mask:
    """Return the (h, w) part of an object's mask that lies in a window.

    Args:
        segmentations: Of many objects.
        index: Which of them.
        height: Of its image.
        window: The part; the rest of the mask is not made.
    """
    if segmentations.is_runs[index]:
        return runs_in_window(segmentations.run_lengths(index), height=height, window=window)
    # A polygon is rasterised in its own box, whose corner is a whole pixel: the same pixels as in the image.
    parts = segmentations.polygons(index)
    corners = np.concatenate([part.reshape(-1, 2) for part in parts])
    left, top = (int(edge) for edge in np.maximum(np.floor(corners.min(axis=0)), 0))
    right, bottom = (int(edge) for edge in np.ceil(corners.max(axis=0)) + 1)
    size = (max(1, bottom - top), max(1, right - left))
    runs = polygon_runs([part.reshape(-1, 2) - (left, top) for part in parts], size)
    moved = window._replace(top=window.top - top, left=window.left - left)
    return runs_in_window(runs, height=size[0], window=moved)


def runs_in_window(runs: NDArray[np.integer], *, height: int, window: Window) -> Mask:
    """Return the (h, w) part of a mask that lies in a window.

    Args:
        runs: Of the mask; see `run_lengths`.
        height: Of the mask.
        window: May reach out of the mask, where nothing is.
    """
    places = np.cumsum(runs, dtype=np.int64)
    starts, ends = places[: places.size // 2 * 2 : 2], places[1::2]
    # A run goes down a column, and on at the top of the next. Only columns of the window are taken.
    near = (ends > starts) & (ends > max(0, window.left) * height) & (starts < window.right * height)
    starts, ends = starts[near], ends[near]
    first = np.maximum(starts // height, window.left)
    last = np.minimum((ends - 1) // height, window.right - 1)
    counts = np.maximum(last - first + 1, 0)
    own = np.repeat(np.arange(len(counts)), counts)  # one for each column of each run
    columns = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[own]
    tops = np.maximum(starts[own] - columns * height, 0)
    bottoms = np.minimum(ends[own] - columns * height, height)
    changes = np.zeros((window.width, window.height + 1), np.int32)
    for edges, change in ((tops, 1), (bottoms, -1)):
        np.add.at(changes, (columns - window.left, np.clip(edges - window.top, 0, window.height)), change)
    return np.cumsum(changes[:, :-1], axis=1).T > 0
