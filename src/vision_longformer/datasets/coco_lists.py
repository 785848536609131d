"""The three lists of a COCO annotation file: categories, images, annotations.

Each is read by a function that collects what is wrong with its entries, and returns those that can be used.
"""

from __future__ import annotations

import json
import math
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vision_longformer.datasets.coco_entries import (
    Annotation,
    Category,
    EntryError,
    ImageEntry,
    Outline,
    identity,
    read_annotation,
    read_category,
    read_image,
    read_segmentation,
)
from vision_longformer.datasets.problems import Problems, printable, quoted, some
from vision_longformer.images import AS_STORED, ImageError, Reading, describe_image
from vision_longformer.utils.flat import Segmentations

LISTS = ("images", "annotations", "categories")
Entry = TypeVar("Entry", Category, ImageEntry)


class Kept(Generic[Entry]):
    """Categories or images that can be used, and the ids of those that cannot.

    Attributes:
        kept: In the order of labels, or of images.
        place: Of each id, in `kept`.
        left_out: Ids of entries that cannot be used.
        upright: Of images: whether annotations refer to them turned upright.
    """

    def __init__(self) -> None:
        self.kept: list[Entry] = []
        self.place: dict[int, int] = {}
        self.left_out: set[int] = set()
        self.upright: list[bool] = []


def read_lists(file: Path) -> dict[str, list[Any]]:
    """Return the three lists of an annotation file."""
    data = file.read_bytes()
    try:
        try:
            content = json.loads(data)
        except ValueError as error:
            if "digits" not in str(error):
                raise
            content = json.loads(data, parse_int=lambda text: int(text) if len(text) < 400 else math.inf)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds {printable(type(content).__name__)}, not a mapping with {', '.join(LISTS)}")
    for name in LISTS:
        if not isinstance(content.get(name), list):
            there = f"is {quoted(content[name])}" if name in content else "is missing"
            raise ValueError(f"{file}: the list {name!r} {there}; a COCO file has {', '.join(LISTS)}")
    return content


def read_categories(entries: list[Any], problems: Problems, classes: Sequence[str] | None) -> Kept[Category]:
    """Read the categories, in the order of their ids, or of a model's `classes`: those that lack there have id -1."""
    result = Kept[Category]()
    names: dict[str, int] = {}
    for category in _each(entries, read_category, problems, result):
        if category.name in names:
            result.left_out.add(category.id)
            problems.add(
                "category of the same name",
                f"category {category.id} has the name {printable(category.name)}, as category {names[category.name]}",
            )
            continue
        names[category.name] = category.id
        result.kept.append(category)
    result.kept.sort()
    if classes is not None:
        unknown = [printable(category.name) for category in result.kept if category.name not in classes]
        if unknown:
            raise ValueError(
                f"{problems.file}: has the categories {some(unknown)}, which the model's {len(classes)} classes do "
                f"not include ({some(list(classes))})"
            )
        result.kept = [Category(names.get(name, -1), name) for name in classes]
    result.place = {category.id: place for place, category in enumerate(result.kept) if category.id >= 0}
    return result


def read_images(entries: list[Any], problems: Problems, folder: Path, reading: Reading = AS_STORED) -> Kept[ImageEntry]:
    """Read the images, and the headers of their files in `folder`."""
    result = Kept[ImageEntry]()
    images = list(_each(entries, read_image, problems, result))
    same_file: dict[str, list[int]] = {}
    for image in images:
        same_file.setdefault(os.path.normpath(image.file_name), []).append(image.id)
    for image in images:
        try:
            _check_only_entry(image, same_file[os.path.normpath(image.file_name)])
            upright = _refers_to_upright(image, folder, reading)
        except EntryError as error:
            problems.add(error.reason, str(error))
            result.left_out.add(image.id)
            continue
        result.place[image.id] = len(result.kept)
        result.kept.append(image)
        result.upright.append(upright)
    return result


def _check_only_entry(image: ImageEntry, ids: Sequence[int]) -> None:
    """Refuse an image whose file has several entries: each would be learned without the objects of the others."""
    if len(ids) > 1:
        others = some([str(other) for other in ids if other != image.id])
        raise EntryError(
            "image file with several entries",
            f"image {image.id} has the file {printable(image.file_name)}, as image {others}; join them into one entry "
            "with the annotations of all",
        )


def _refers_to_upright(image: ImageEntry, folder: Path, reading: Reading) -> bool:
    """Compare an image's size with that of its file, and say in which orientation they agree."""
    path, stated = folder / image.file_name, (image.height, image.width)
    where = f"image {image.id} ({printable(image.file_name)})"
    try:
        there = path.is_file()
    except OSError:  # a name that is too long
        there = False
    if not there:
        raise EntryError("image file missing", f"{where}: there is no file {printable(str(path))}")
    try:
        stored = describe_image(path, reading=reading, upright=False).size
        if stored == stated:
            return False
        turned = describe_image(path, reading=reading).size == stated
    except ImageError as error:
        raise EntryError("image cannot be read", f"{where} cannot be read: {error}") from error
    if not turned:
        raise EntryError(
            "image of another size",
            f"{where} has {stored[1]}×{stored[0]} pixels, and the annotations say {image.width}×{image.height}",
        )
    return True


def _each(
    entries: Iterable[Any], read: Callable[[object], Entry], problems: Problems, result: Kept[Entry]
) -> Iterable[Entry]:
    """Yield the entries that can be read and have an id of their own."""
    seen: set[int] = set()
    for raw in entries:
        try:
            entry = read(raw)
        except EntryError as error:
            problems.add(error.reason, str(error))
            if isinstance(raw, dict) and type(raw.get("id")) is int and raw["id"] not in seen:
                result.left_out.add(raw["id"])
            continue
        if entry.id in seen:
            kind = "category" if isinstance(entry, Category) else "image"
            name = entry.name if isinstance(entry, Category) else entry.file_name
            problems.add(
                f"{kind} with the id of another", f"{kind} {entry.id} ({printable(name)}): its id is not unique"
            )
            continue
        seen.add(entry.id)
        result.left_out.discard(entry.id)
        yield entry


class Outlines:
    """Outlines as they come, in growing arrays."""

    def __init__(self) -> None:
        self.ends, self.starts, self.lengths = array("q"), array("q"), array("q")
        self.is_runs, self.coordinates, self.runs = array("b"), array("d"), array("I")

    def add(self, outline: Outline) -> None:
        """Append an object's outline."""
        if outline.runs is None:
            for polygon in outline.polygons:
                self.starts.append(len(self.coordinates))
                self.lengths.append(len(polygon))
                self.coordinates.extend(polygon)
        else:
            self.starts.append(len(self.runs))
            self.lengths.append(len(outline.runs))
            self.runs.frombytes(outline.runs.tobytes())
        self.is_runs.append(outline.runs is not None)
        self.ends.append(len(self.starts))

    def stored(self) -> Segmentations:
        """Return all of them."""
        return Segmentations(
            ends=np.array(self.ends, np.int64),
            is_runs=np.array(self.is_runs, bool),
            starts=np.array(self.starts, np.int64),
            lengths=np.array(self.lengths, np.int64),
            coordinates=np.array(self.coordinates, np.float64),
            runs=np.array(self.runs, np.uint32),
        )


class Store(NamedTuple):
    """Annotations that can be used, image by image.

    Attributes:
        annotations: In the order of the images.
        per_image: Their number.
        outlines: Of each, if they are asked for.
    """

    annotations: list[Annotation]
    per_image: NDArray[np.int64]
    outlines: Outlines


def read_annotations(
    entries: list[Any],
    problems: Problems,
    categories: Kept[Category],
    images: Kept[ImageEntry],
    *,
    with_masks: bool,
) -> Store:
    """Read the annotations of the categories and images that can be used."""
    store = Store([], np.zeros(len(images.kept), np.int64), Outlines())
    for place, entry in sorted(_belonging(entries, problems, categories, images), key=lambda pair: pair[0]):
        image = images.kept[place]
        size = (image.height, image.width)
        where = f"annotation {entry['id']} of image {image.id} ({printable(image.file_name)})"
        try:
            annotation = read_annotation(entry, size=size, where=where)
            if with_masks:
                store.outlines.add(read_segmentation(entry, size=size, where=where))
        except EntryError as error:
            problems.add(error.reason, str(error))
            continue
        store.annotations.append(annotation)
        store.per_image[place] += 1
    return store


def _belonging(
    entries: list[Any], problems: Problems, categories: Kept[Category], images: Kept[ImageEntry]
) -> Iterable[tuple[int, dict[str, Any]]]:
    """Yield the annotations with an id of their own, an image and a category, each after the place of its image."""
    seen: set[int] = set()
    for entry in entries:
        try:
            annotation_id, image_id, category_id = identity(entry)
            if annotation_id in seen:
                raise EntryError(
                    "annotation with the id of another",
                    f"annotation {annotation_id} of image {image_id}: its id is not unique",
                )
            seen.add(annotation_id)
            for kind, wanted, known in (("image", image_id, images), ("category", category_id, categories)):
                if wanted not in known.place and wanted not in known.left_out:
                    raise EntryError(
                        f"annotation of no {kind}",
                        f"annotation {annotation_id} of image {image_id} points to {kind} {wanted}, "
                        "which the file does not have",
                    )
        except EntryError as error:
            problems.add(error.reason, str(error))
            continue
        if image_id not in images.place:
            problems.consequences["annotation of an image left out"] += 1
        elif category_id not in categories.place:
            problems.consequences["annotation of a category left out"] += 1
        else:
            yield images.place[image_id], entry
