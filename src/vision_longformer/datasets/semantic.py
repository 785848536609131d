"""Maps of classes: from index images, or from the instance masks of a COCO file.

Index images are label images (see `datasets.label_files`) whose values are classes. DIR/classes.txt names these, one a
line, from 0 on.

COCO masks: 0 is the background, class k of the file is k + 1, in the union of the masks of its objects, crowd regions
included. Where objects of different classes overlap, the smaller one is on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.label_files import Pair, find_pairs, fitted, layouts, read_whole_numbers
from vision_longformer.datasets.problems import Problems
from vision_longformer.images import AS_STORED, MAX_PIXELS, ImageError, Raster, Reading
from vision_longformer.images.rasters import read_raster_and_valid
from vision_longformer.images.reader import Mask
from vision_longformer.masks.rle import segmentation_to_mask
from vision_longformer.utils.flat import Texts
from vision_longformer.utils.steps import Steps, finish, in_threads

IGNORE_INDEX = 255
BACKGROUND = "background"


class Coding(NamedTuple):
    """What the values of index images mean.

    Attributes:
        classes: Names.
        values: The value of each class; None where they are 0, 1, 2 and so on.
        ignored: Value of pixels that belong to no class, unless it is one of `values`; None where there is none.
    """

    classes: tuple[str, ...]
    values: tuple[int, ...] | None = None
    ignored: int | None = IGNORE_INDEX

    def decode(self, labels: NDArray[np.generic], path: Path) -> NDArray[np.int64]:
        """Return (H, W) classes, and `ignored` where there is none.

        Raises:
            ImageError: A value is none of them.
        """
        found = labels.astype(np.int64)
        wrong = found != self.ignored if self.ignored is not None else np.ones(found.shape, bool)
        if self.values is None:
            wrong &= (found < 0) | (found >= len(self.classes))
        else:
            known = np.array(self.values)
            order = np.argsort(known)
            place = order[np.searchsorted(known[order], found).clip(max=len(known) - 1)]
            of_class = known[place] == found
            wrong &= ~of_class
            found = np.where(of_class, place, found)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ImageError(
                f"{path}: has the value {labels[row, column]} at row {row}, column {column}; {self}; "
                "dense.label_values can say which value is which class"
            )
        return found

    def __str__(self) -> str:
        number = len(self.classes)
        known = f"0 to {number - 1}" if self.values is None else ", ".join(map(str, self.values))
        rest = "" if self.ignored is None else f", and {self.ignored} is ignored"
        return f"the {number} classes are {known}{rest}"


@dataclass(frozen=True, eq=False)
class SemanticSplit:
    """Images with index images as labels.

    Attributes:
        folder: What all names are relative to.
        coding: What the values of labels mean.
        images: File names.
        labels: File name of each image's label.
        sizes: (N, 2) (height, width) in pixels.
        upright: (N,) whether labels refer to the image turned upright as EXIF says.
        counts: (K + 1,) how many pixels of all labels each class has, and how many are ignored; None if labels were
            not read.
        skipped: How many images were left out, by reason.
        remarks: What of the folder was not taken, a sentence each.
        reading: How the images are read. Of a pyramid, labels have the pixels of the level that is read.
    """

    folder: Path
    coding: Coding
    images: Texts
    labels: Texts
    sizes: NDArray[np.int32]
    upright: NDArray[np.bool_]
    counts: NDArray[np.int64] | None
    skipped: dict[str, int]
    remarks: tuple[str, ...] = ()
    reading: Reading = AS_STORED

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of their indices."""
        return self.coding.classes

    def path(self, image: int) -> Path:
        """Return the file of an image."""
        return self.folder / self.images[image]

    def read(self, image: int, *, max_pixels: int = MAX_PIXELS) -> Raster:
        """Return an image, turned as its label takes it.

        Raises:
            ImageError: It cannot be read.
        """
        return self.read_and_valid(image, max_pixels=max_pixels)[0]

    def read_and_valid(self, image: int, *, max_pixels: int = MAX_PIXELS) -> tuple[Raster, Mask | None]:
        """Return an image, and which of its (H, W) pixels are valid; None where all are. See `read`."""
        upright = bool(self.upright[image])
        return read_raster_and_valid(self.path(image), reading=self.reading, max_pixels=max_pixels, upright=upright)

    def read_label(self, image: int, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.int64]:
        """Return the (H, W) classes of an image's pixels, and `coding.ignored` where they belong to none.

        Raises:
            ImageError: The label cannot be read, or has a value that is no class.
        """
        path = self.folder / self.labels[image]
        return self.coding.decode(read_whole_numbers(path, max_pixels=max_pixels), path)


def read_semantic(
    data: str | Path,
    split: str,
    *,
    classes: Sequence[str] | None = None,
    values: Sequence[int] | None = None,
    ignore_index: int | None = IGNORE_INDEX,
    skip_invalid: bool = False,
    read_labels: bool = True,
    reading: Reading = AS_STORED,
) -> SemanticSplit:
    """Find the images of a split and their labels, read the labels, and compare their sizes.

    Args:
        data: A folder, see above.
        split: "train", "val" or any other there is.
        classes: Names of the classes that a model knows; by default those of classes.txt. Where there is such a file,
            they must begin with its names, as labels are indices.
        values: The value that each class has in labels; by default 0, 1, 2 and so on.
        ignore_index: Value of pixels that belong to no class; None where there is none.
        skip_invalid: Leave out images whose label is missing, unreadable, of another size, or has other values.
        read_labels: Whether all labels are read and checked now; otherwise their headers are.
        reading: How the images are to be read.

    Raises:
        FileNotFoundError: There is no such folder, or nothing that names the classes.
        ValueError: An image has no label that fits and `skip_invalid` is false, there is no image, or the classes of
            classes.txt are others.
    """
    steps = reading_semantic(
        Path(data),
        split,
        classes=classes,
        values=values,
        ignore_index=ignore_index,
        skip_invalid=skip_invalid,
        read_labels=read_labels,
        reading=reading,
    )
    return finish(steps)


def reading_semantic(
    data: Path,
    split: str,
    *,
    classes: Sequence[str] | None,
    values: Sequence[int] | None,
    ignore_index: int | None,
    skip_invalid: bool,
    read_labels: bool,
    max_pixels: int = MAX_PIXELS,
    reading: Reading = AS_STORED,
) -> Steps[SemanticSplit]:
    """Do what `read_semantic` does, and say how far it is."""
    pairs, remarks = find_pairs(data, split)
    coding = _coding(data, classes, values, ignore_index)

    def look(pair: Pair) -> tuple[tuple[int, int], bool, NDArray[np.int64]] | ImageError:
        try:
            size, turned = fitted(pair, reading)
            counts = np.zeros(len(coding.classes) + 1, np.int64)
            if read_labels:
                counts = _counts(coding, pair.labels[0], max_pixels)
        except ImageError as error:
            return error
        return size, turned, counts

    found = yield from in_threads("labels read", pairs, look)
    problems = Problems(data / split)
    kept = []
    for pair, result in zip(pairs, found, strict=True):
        if isinstance(result, ImageError):
            problems.add("image without a label that fits", str(result))
        else:
            kept.append((pair, *result))
    if not skip_invalid:
        problems.raise_any()
    if not kept:
        raise ValueError(f"{data / split}: has no image with a label; expected, in {data}: {layouts(split)}")
    return SemanticSplit(
        folder=data,
        coding=coding,
        images=Texts.of(str(pair.image.relative_to(data)) for pair, *_ in kept),
        labels=Texts.of(str(pair.labels[0].relative_to(data)) for pair, *_ in kept),
        sizes=np.array([size for _, size, *_ in kept], np.int32),
        upright=np.array([turned for *_, turned, _ in kept], bool),
        counts=np.sum([counts for *_, counts in kept], axis=0) if read_labels else None,
        skipped=problems.skipped(),
        remarks=remarks,
        reading=reading,
    )


def _counts(coding: Coding, path: Path, max_pixels: int) -> NDArray[np.int64]:
    """Return how many pixels of a label each class has, and how many are ignored."""
    label = coding.decode(read_whole_numbers(path, max_pixels=max_pixels), path)
    number = len(coding.classes)
    last = label if coding.ignored is None else np.where(label == coding.ignored, number, label)
    return np.bincount(last.ravel(), minlength=number + 1)


def _coding(data: Path, classes: Sequence[str] | None, values: Sequence[int] | None, ignored: int | None) -> Coding:
    """Return what labels mean by classes.txt, by what a model knows, and by the options."""
    file = data / "classes.txt"
    names = tuple(_read_classes(file) if classes is None else classes)
    if classes is not None and file.is_file():
        _check_same(_read_classes(file), names, file)
    if values is not None and len(values) != len(names):
        raise ValueError(
            f"dense.label_values={list(values)!r}: there must be one for each of the {len(names)} classes "
            f"({', '.join(names)})"
        )
    return Coding(names, None if values is None else tuple(values), ignored)


def coco_classes(split: CocoSplit) -> tuple[str, ...]:
    """Return the names of the classes that `coco_label` gives.

    Raises:
        ValueError: A category has the name of class 0.
    """
    if BACKGROUND in split.classes:
        raise ValueError(
            f"{split.file}: has a category named {BACKGROUND}, as class 0 is named, which holds all pixels outside of "
            "objects; remove it, or give it another name"
        )
    return (BACKGROUND, *split.classes)


def coco_label(split: CocoSplit, image: int) -> NDArray[np.int64]:
    """Return the (H, W) classes of an image's pixels: 0 is the background, class k of the file k + 1.

    Raises:
        ValueError: The file was read without masks.
    """
    if split.segmentations is None:
        raise ValueError(f"{split.file}: was read without masks; read_coco(..., with_masks=True) reads them")
    size = split.size(image)
    label = np.zeros(size, np.int64)
    largest_first = sorted(split.annotations(image), key=lambda place: -split.areas[place])
    for place in largest_first:
        label[segmentation_to_mask(split.segmentations, place, size)] = split.labels[place] + 1
    return label


def _read_classes(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it names the classes of the labels, one a line, from 0 on")
    try:
        names = [name.strip() for name in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not a text in UTF-8 ({error})") from error
    if not all(names) or not names or len(set(names)) < len(names):
        raise ValueError(f"{path}: must name each class once, one a line")
    return names


def _check_same(written: Sequence[str], known: Sequence[str], path: Path) -> None:
    for index, name in enumerate(written):
        if index >= len(known) or known[index] != name:
            there = known[index] if index < len(known) else "nothing"
            raise ValueError(f"{path}: class {index} is {name} in the labels, and {there} for the model")
