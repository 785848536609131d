"""Windows of labelled images that are too large to be decoded as a whole: each is an image of a split of its own.

n windows, each of which is a row of five numbers: its image, top, left, height and width in pixels
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.label_files import read_whole_numbers
from vision_longformer.datasets.object_runs import segmentations_of
from vision_longformer.datasets.semantic import SemanticSplit
from vision_longformer.images import MAX_PIXELS, ImageError, Raster, Reading, open_reader
from vision_longformer.images.rasters import read_window_raster
from vision_longformer.images.reader import Mask, Window
from vision_longformer.masks import run_lengths
from vision_longformer.masks.rle import mask_to_box
from vision_longformer.masks.windows import segmentation_in_window

MIN_SIDE = 1.0  # pixels of the box that a window leaves of an object
NONE = np.zeros((0, 5), np.int64)


@dataclass(frozen=True, eq=False)
class SemanticWindows(SemanticSplit):
    """Windows of images with index images as labels.

    Attributes:
        windows: (n, 5)
    """

    windows: NDArray[np.int64] = dataclasses.field(default_factory=lambda: NONE)

    def __len__(self) -> int:
        return len(self.windows)

    def path(self, image: int) -> Path:
        """Return the file of a window's image."""
        return self.folder / self.images[int(self.windows[image, 0])]

    def read_and_valid(self, image: int, *, max_pixels: int = MAX_PIXELS) -> tuple[Raster, Mask | None]:
        """Return the pixels of a window, and which are valid. See `SemanticSplit.read_and_valid`."""
        return _read(self, image, max_pixels=max_pixels)

    def read_label(self, image: int, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.int64]:
        """Return the (h, w) classes of a window's pixels. See `SemanticSplit.read_label`."""
        number, window = place_of(self.windows[image])
        path = self.folder / self.labels[number]
        return self.coding.decode(read_whole_numbers(path, max_pixels=max_pixels, window=window), path)


@dataclass(frozen=True, eq=False)
class CocoWindows(CocoSplit):
    """Windows of images with objects, of which each window has what lies in it.

    Attributes:
        windows: (n, 5)
    """

    windows: NDArray[np.int64] = dataclasses.field(default_factory=lambda: NONE)

    def path(self, image: int) -> Path:
        """Return the file of a window's image."""
        return self.folder / self.file_names[int(self.windows[image, 0])]

    def read_and_valid(self, image: int, *, max_pixels: int = MAX_PIXELS) -> tuple[Raster, Mask | None]:
        """Return the pixels of a window, and which are valid. See `CocoSplit.read_and_valid`."""
        return _read(self, image, max_pixels=max_pixels)


Windows = SemanticWindows | CocoWindows


def windows_of(split: CocoSplit | SemanticSplit, windows: NDArray[np.int64]) -> Windows:
    """Return windows as images of a split.

    Args:
        split: Of whole images.
        windows: (n, 5)
    """
    sizes = windows[:, 3:].astype(np.int32)
    if isinstance(split, SemanticSplit):
        return SemanticWindows(**_fields(split) | {"sizes": sizes}, windows=windows)
    cut = [_cut(split, *place_of(window)) for window in windows]
    parts = [part for parts in cut for part in parts]
    places = np.array([part.place for part in parts], np.int64)
    boxes = np.array([part.box for part in parts], np.float64).reshape(-1, 4)
    runs = [part.runs for part in parts if part.runs is not None]
    values = _fields(split) | {
        "image_ids": np.arange(1, len(windows) + 1),
        "sizes": sizes,
        "ends": np.cumsum([len(own) for own in cut], dtype=np.int64),
        "annotation_ids": np.arange(1, len(parts) + 1),
        "boxes": boxes.astype(np.float32),
        "boxes_xywh": np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1),
        "labels": split.labels[places],
        "areas": np.array([part.area for part in parts], np.float64),
        "is_crowd": split.is_crowd[places],
        "segmentations": None if split.segmentations is None else segmentations_of(runs),
    }
    return CocoWindows(**values, windows=windows)


def _read(split: Windows, image: int, *, max_pixels: int) -> tuple[Raster, Mask | None]:
    number, window = place_of(split.windows[image])
    upright = bool(split.upright[number])
    return read_part(split.path(image), window, reading=split.reading, upright=upright, max_pixels=max_pixels)


def read_part(
    path: Path, window: Window, *, reading: Reading, upright: bool, max_pixels: int = MAX_PIXELS
) -> tuple[Raster, Mask | None]:
    """Return the pixels of a part of an image, 0 where they are missing; and which are there, None where all are.

    Raises:
        ImageError: The image cannot be read, or has become smaller.
    """
    with closing(open_reader(path, **vars(reading), max_pixels=max_pixels, upright=upright)) as reader:
        height, width = reader.info.size
        if window.bottom > height or window.right > width:
            raise ImageError(f"{path}: has {width}×{height} pixels, fewer than its labels")
        return read_window_raster(reader, window, reading.model_channels)


def place_of(window: NDArray[np.int64]) -> tuple[int, Window]:
    """Return a window's image and where it lies."""
    number, *place = window.tolist()
    return number, Window(*place)


@dataclass(frozen=True)
class _Part:
    """What a window has of an object; `runs` are None where the split has no masks."""

    place: int
    box: tuple[float, float, float, float]
    area: float
    runs: run_lengths.Runs | None


def _cut(split: CocoSplit, number: int, window: Window) -> list[_Part]:
    return list(_parts(split, number, window))


def _parts(split: CocoSplit, number: int, window: Window) -> Iterator[_Part]:
    own = split.annotations(number)
    boxes = split.boxes[own.start : own.stop].astype(np.float64) - [window.left, window.top] * 2
    boxes = boxes.clip(0, [window.width, window.height] * 2)
    near = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    for index in np.flatnonzero(near).tolist():
        place, box = own.start + index, boxes[index]
        if split.segmentations is None:
            if (box[2:] - box[:2]).min() >= MIN_SIDE:
                yield _Part(place, tuple(box.tolist()), float(np.prod(box[2:] - box[:2])), None)
            continue
        height = split.size(number)[0]
        mask = segmentation_in_window(split.segmentations, place, height=height, window=window)
        if mask.any():
            yield _Part(place, mask_to_box(mask), float(mask.sum()), run_lengths.from_mask(mask))


def _fields(split: Any) -> dict[str, Any]:
    kind = SemanticSplit if isinstance(split, SemanticSplit) else CocoSplit
    return {field.name: getattr(split, field.name) for field in dataclasses.fields(cast(Any, kind))}
