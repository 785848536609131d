"""Which windows of large images are learned from and measured on: by class, and away from what has no label.

Images are cut into square cells, of which is known how much of each class they hold. A training window is drawn in
three steps: a class, a cell that has it, and a place at which the window holds that cell.

P cells, K classes
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.label_files import blocks_of, read_whole_numbers
from vision_longformer.datasets.semantic import SemanticSplit
from vision_longformer.images import ImageError
from vision_longformer.images.reader import Window
from vision_longformer.utils.steps import Steps, in_threads

Sampling = Literal["classes", "uniform"]
SMALLEST_CELL = 64  # pixels, unless windows are smaller


@dataclass(frozen=True, eq=False)
class Cells:
    """What parts of images hold.

    Attributes:
        side: Of a cell in pixels; those at the lower and right edges of an image are smaller.
        places: (P, 3) image, top and left.
        labelled: (P,) pixels that have a label.
        counts: (P, K) pixels of each class, or objects whose centre lies in the cell.
    """

    side: int
    places: NDArray[np.int64]
    labelled: NDArray[np.int64]
    counts: NDArray[np.int64]


def reading_cells(split: CocoSplit | SemanticSplit, window: int, *, max_pixels: int) -> Steps[Cells]:
    """Look through the labels of a split, index images piece by piece.

    Args:
        split: Of whole images.
        window: Side of windows in pixels.
        max_pixels: Refuse larger labels that are decoded as a whole.

    Raises:
        ValueError: A label cannot be read, or has a value that is no class.
    """
    side = min(window, max(SMALLEST_CELL, window // 4))
    if isinstance(split, CocoSplit):
        yield from ()
        return _cells_of_objects(split, side)
    blocks = [
        (image, block)
        for image in range(len(split))
        for block in blocks_of(split.folder / split.labels[image], _size(split, image), multiple=side)
    ]

    def look(place: tuple[int, Window]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | ImageError:
        image, block = place
        path = split.folder / split.labels[image]
        try:
            stored = read_whole_numbers(path, max_pixels=max_pixels, window=block)
            return _counted(split.coding.decode(stored, path), image, block, side, classes=len(split.classes))
        except ImageError as error:
            return error

    found = yield from in_threads("parts of labels read", blocks, look)
    places, counts = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
    for result in found:
        if isinstance(result, ImageError):
            raise ValueError(str(result))
        places.append(result[0])
        counts.append(result[1])
    every = np.concatenate(counts)
    return Cells(side, np.concatenate(places), every.sum(axis=1), every)


def counted(split: CocoSplit | SemanticSplit, cells: Cells) -> CocoSplit | SemanticSplit:
    """Return a split that says how many pixels each class of its index images has."""
    if isinstance(split, CocoSplit):
        return split
    of_classes = cells.counts.sum(axis=0)
    ignored = int(np.prod(split.sizes.astype(np.int64), axis=1).sum() - of_classes.sum())
    return replace(split, counts=np.append(of_classes, ignored))


def grid(split: CocoSplit | SemanticSplit, cells: Cells, window: int) -> NDArray[np.int64]:
    """Return the (n, 5) windows that cover images without overlap, but for those that have no labelled pixel."""
    labelled = cells.places[cells.labelled > 0]
    kept = []
    for image in range(len(split)):
        height, width = _size(split, image)
        tops, lefts = np.arange(0, height, window), np.arange(0, width, window)
        seen = np.zeros((len(tops), len(lefts)), bool)
        own = labelled[labelled[:, 0] == image, 1:]
        first, last = own // window, np.minimum(own + cells.side - 1, [height - 1, width - 1]) // window
        for rows in (first[:, 0], last[:, 0]):  # a cell is no larger than a window
            for columns in (first[:, 1], last[:, 1]):
                seen[rows, columns] = True
        row, column = np.nonzero(seen)
        heights, widths = np.minimum(window, height - tops[row]), np.minimum(window, width - lefts[column])
        kept.append(np.stack([np.full(len(row), image), tops[row], lefts[column], heights, widths], axis=1))
    return np.concatenate(kept)


class WindowSampler:
    """Draws windows.

    Args:
        cells: Of the images.
        sizes: (N, 2) (height, width) of the images.
        sampling: classes draws one of the classes that occur, or for objects any place as if it were one more; uniform
            draws any labelled place.
    """

    def __init__(self, cells: Cells, sizes: NDArray[np.int32], sampling: Sampling, *, of_objects: bool) -> None:
        rows = [cells.labelled]
        if sampling == "classes":
            rows = [*([cells.labelled] if of_objects else []), *cells.counts.T]
        self._side, self._places, self._sizes = cells.side, cells.places, sizes
        self._cumulative = [np.cumsum(row) for row in rows if row.any()]

    def draw(self, numbers: NDArray[np.float64], side: int) -> NDArray[np.int64]:
        """Return the five numbers of a window.

        Args:
            numbers: Four, drawn between 0 and 1.
            side: Of the window in pixels; it is smaller where the image is.
        """
        of_class, of_cell, down, across = numbers.tolist()
        cumulative = self._cumulative[min(int(of_class * len(self._cumulative)), len(self._cumulative) - 1)]
        cell = int(np.searchsorted(cumulative, of_cell * cumulative[-1], side="right"))
        image, *corner = self._places[min(cell, len(cumulative) - 1)].tolist()
        starts, lengths = [], []
        for start, total, share in zip(corner, self._sizes[image].tolist(), (down, across), strict=True):
            length = min(side, total)
            spare = length - min(self._side, total - start)  # by how much the window can be moved around the cell
            low, high = sorted((start - spare, start))
            low, high = (max(0, min(edge, total - length)) for edge in (low, high))
            starts.append(low + min(int(share * (high - low + 1)), high - low))
            lengths.append(length)
        return np.array([image, *starts, *lengths], np.int64)


def _counted(
    label: NDArray[np.int64], image: int, block: Window, side: int, *, classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the (p, 3) places of a block's cells, and (p, K) how many pixels of each class they have."""
    places, counts = [], []
    for top, left in _corners(label.shape[0], label.shape[1], side):
        cell = label[top : top + side, left : left + side]
        known = cell[(cell >= 0) & (cell < classes)]  # what is ignored is no class
        places.append((image, block.top + top, block.left + left))
        counts.append(np.bincount(known, minlength=classes))
    return np.array(places, np.int64), np.array(counts, np.int64)


def _corners(height: int, width: int, side: int) -> Iterator[tuple[int, int]]:
    return ((top, left) for top in range(0, height, side) for left in range(0, width, side))


def _cells_of_objects(split: CocoSplit, side: int) -> Cells:
    places, labelled, counts = [], [], []
    for image in range(len(split)):
        height, width = _size(split, image)
        tops, lefts = np.arange(0, height, side), np.arange(0, width, side)
        grid_of = np.zeros((len(tops), len(lefts), len(split.classes)), np.int64)
        own = split.annotations(image)
        boxes = split.boxes[own.start : own.stop].astype(np.float64)
        centres = ((boxes[:, :2] + boxes[:, 2:]) / 2).clip(0, [width - 1, height - 1]).astype(np.int64) // side
        np.add.at(grid_of, (centres[:, 1], centres[:, 0], split.labels[own.start : own.stop]), 1)
        corners = np.stack(np.meshgrid(tops, lefts, indexing="ij"), axis=-1).reshape(-1, 2)
        places.append(np.concatenate([np.full((len(corners), 1), image), corners], axis=1))
        labelled.append(np.minimum(side, [height, width] - corners).prod(axis=1))
        counts.append(grid_of.reshape(len(corners), -1))
    return Cells(side, np.concatenate(places), np.concatenate(labelled), np.concatenate(counts))


def _size(split: CocoSplit | SemanticSplit, image: int) -> tuple[int, int]:
    height, width = split.sizes[image].tolist()
    return height, width
