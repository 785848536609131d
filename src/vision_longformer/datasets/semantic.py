"""Maps of classes: from index images, or from the instance masks of a COCO file.

Index images: DIR/SPLIT holds the images; the label of DIR/SPLIT/NAME.jpg is DIR/SPLIT_labels/NAME.png, or, where there
is no such folder, DIR/SPLIT/NAME.png beside the image (which then is no PNG itself). A label has one channel, whose
values are classes: gray of 8 or 16 bits, or a palette's indices. DIR/classes.txt names them, one a line, from 0 on.
Labels refer to the pixels as stored or upright, whichever their size fits, as those of COCO files do
(see `datasets.coco`).

COCO masks: 0 is the background, class k of the file is k + 1, in the union of the masks of its objects, crowd regions
included. Where objects of different classes overlap, the smaller one is on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.problems import Problems
from vision_longformer.images import (
    AS_STORED,
    MAX_PIXELS,
    ImageError,
    Raster,
    Reading,
    describe_image,
    read_indices,
    read_raster,
)
from vision_longformer.images.find import images_below
from vision_longformer.masks.rle import segmentation_to_mask
from vision_longformer.utils.flat import Texts

IGNORE_INDEX = 255
BACKGROUND = "background"


@dataclass(frozen=True, eq=False)
class SemanticSplit:
    """Images with index images as labels.

    Attributes:
        folder: What all names are relative to.
        classes: Names, in the order of their indices.
        images: File names.
        labels: File name of each image's label.
        sizes: (N, 2) (height, width) in pixels.
        upright: (N,) whether labels refer to the image turned upright as EXIF says.
        ignore_index: Value of pixels that belong to no class.
        skipped: How many images were left out, by reason.
        remarks: What of the folder was not taken, a sentence each.
        reading: How the images are read. Of a pyramid, labels have the pixels of the level that is read.
    """

    folder: Path
    classes: tuple[str, ...]
    images: Texts
    labels: Texts
    sizes: NDArray[np.int32]
    upright: NDArray[np.bool_]
    ignore_index: int
    skipped: dict[str, int]
    remarks: tuple[str, ...] = ()
    reading: Reading = AS_STORED

    def __len__(self) -> int:
        return len(self.images)

    def read(self, image: int, *, max_pixels: int = MAX_PIXELS) -> Raster:
        """Return an image, turned as its label takes it.

        Raises:
            ImageError: It cannot be read.
        """
        path = self.folder / self.images[image]
        return read_raster(path, reading=self.reading, max_pixels=max_pixels, upright=bool(self.upright[image]))

    def read_label(self, image: int, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.int64]:
        """Return the (H, W) classes of an image's pixels.

        Raises:
            ImageError: The label cannot be read, or has a value that is no class.
        """
        path = self.folder / self.labels[image]
        label = read_indices(path, max_pixels=max_pixels).astype(np.int64)
        wrong = (label >= len(self.classes)) & (label != self.ignore_index)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ImageError(
                f"{path}: has the value {label[row, column]} at row {row}, column {column}; the {len(self.classes)} "
                f"classes are 0 to {len(self.classes) - 1}, and {self.ignore_index} is ignored"
            )
        return label


def read_semantic(
    data: str | Path,
    split: str,
    *,
    classes: Sequence[str] | None = None,
    ignore_index: int = IGNORE_INDEX,
    skip_invalid: bool = False,
    reading: Reading = AS_STORED,
) -> SemanticSplit:
    """Find the images of a split and their labels, and compare their sizes.

    Args:
        data: A folder, see above.
        split: "train", "val" or any other there is.
        classes: Names of the classes that a model knows; by default those of classes.txt. Where there is such a file,
            they must begin with its names, as labels are indices.
        ignore_index: Value of pixels that belong to no class.
        skip_invalid: Leave out images whose label is missing, unreadable or of another size.
        reading: How the images are to be read.

    Raises:
        FileNotFoundError: There is no such folder, or nothing that names the classes.
        ValueError: An image has no label that fits and `skip_invalid` is false, there is no image, or the classes of
            classes.txt are others.
    """
    data = Path(data)
    folder, labels_folder = data / split, data / f"{split}_labels"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of images")
    beside = not labels_folder.is_dir()
    names = tuple(_read_classes(data) if classes is None else classes)
    if classes is not None and (data / "classes.txt").is_file():
        _check_same(_read_classes(data), names, data / "classes.txt")
    found: list[tuple[str, str]] = []
    below = images_below(folder)
    for path in below.images:
        if beside and path.suffix.lower() == ".png":
            continue  # a label
        label = path.with_suffix(".png") if beside else labels_folder / path.relative_to(folder).with_suffix(".png")
        found.append((str(path.relative_to(data)), str(label.relative_to(data))))
    problems = Problems(folder)
    kept, sizes, upright = [], [], []
    for pair in found:
        try:
            size, turned = _sizes_of(data / pair[0], data / pair[1], reading)
        except ImageError as error:
            problems.add("image without a label that fits", str(error))
            continue
        kept.append(pair)
        sizes.append(size)
        upright.append(turned)
    if not skip_invalid:
        problems.raise_any()
    if not kept:
        where = f"{labels_folder}/NAME.png" if not beside else f"{folder}/NAME.png, beside images that are no PNG,"
        raise ValueError(f"{folder}: has no image with a label; expected labels as {where} or in {data}/{split}_labels")
    return SemanticSplit(
        folder=data,
        classes=names,
        images=Texts.of(image for image, _ in kept),
        labels=Texts.of(label for _, label in kept),
        sizes=np.array(sizes, np.int32),
        upright=np.array(upright, bool),
        ignore_index=ignore_index,
        skipped=problems.skipped(),
        remarks=(f"{folder}: passed over {below.remark()}",) if below.others else (),
        reading=reading,
    )


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


def _read_classes(data: Path) -> list[str]:
    path = data / "classes.txt"
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


def _sizes_of(image: Path, label: Path, reading: Reading) -> tuple[tuple[int, int], bool]:
    """Return a label's size, and whether it is that of the image turned upright by a quarter."""
    if not label.is_file():
        raise ImageError(f"{image}: its label {label} is missing")
    stored, size = describe_image(image, reading=reading, upright=False).size, describe_image(label, upright=False).size
    if stored == size:
        return size, False
    if describe_image(image, reading=reading).size == size:
        return size, True
    raise ImageError(f"{image}: has {stored[1]}×{stored[0]} pixels, and its label {label} has {size[1]}×{size[0]}")
