"""COCO annotation files: read, checked, and held in a few arrays.

**Orientation.** A photograph may be stored sideways, with EXIF's note how to turn it; the annotation file does not
say whether its boxes were drawn on the stored pixels, as COCO's own tools take them, or on the upright ones, as
browsers show them. The file's width and height tell: where they are those of the stored pixels, boxes refer to these,
and the image is read without turning it; where they are only those of the image turned by a quarter, boxes refer to
the upright image, and it is read upright. A square image, or one stored upside down or mirrored, is taken as stored.
"""

from __future__ import annotations

import json
import math
import warnings
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision_longformer.data.coco_entries import (
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
from vision_longformer.data.flat import Segmentations, Texts
from vision_longformer.data.problems import Problems, printable
from vision_longformer.images import MAX_PIXELS, ImageError, read_orientation, read_rgb, read_size

LISTS = ("images", "annotations", "categories")
Entry = TypeVar("Entry", Category, ImageEntry)


@dataclass(frozen=True, eq=False)
class CocoSplit:
    """The images of an annotation file and what is on them: N images, M annotations, K classes.

    Annotations stand image by image, in the order of the images; those of one image as in the file.

    Attributes:
        file: The annotation file.
        folder: What the images' names are relative to.
        classes: (K,) names, in the order of their category ids.
        category_ids: (K,) of the file, which may have gaps; labels have none. -1 for classes that it lacks.
        image_ids: (N,) of the file.
        file_names: (N,)
        sizes: (N, 2) (height, width) in pixels.
        upright: (N,) whether annotations refer to the image turned upright as EXIF says, not to it as stored.
        ends: (N,) where each image's annotations end.
        annotation_ids: (M,) of the file.
        boxes: (M, 4) x1, y1, x2, y2 in pixels, within the image.
        boxes_xywh: (M, 4) x, y, width, height as in the file, for evaluation.
        labels: (M,) from 0, indices into `classes`.
        areas: (M,) in pixels: of the object as the file has it, of the box where it does not say.
        is_crowd: (M,) whether the region covers many objects.
        segmentations: (M,) polygons and run lengths; None if they were not asked for.
        skipped: How many entries of the file were left out, by reason.
    """

    file: Path
    folder: Path
    classes: tuple[str, ...]
    category_ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    file_names: Texts
    sizes: NDArray[np.int32]
    upright: NDArray[np.bool_]
    ends: NDArray[np.int64]
    annotation_ids: NDArray[np.int64]
    boxes: NDArray[np.float32]
    boxes_xywh: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    is_crowd: NDArray[np.bool_]
    segmentations: Segmentations | None
    skipped: dict[str, int]

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, image: int) -> Path:
        """Return the file of an image."""
        return self.folder / self.file_names[image]

    def size(self, image: int) -> tuple[int, int]:
        """Return an image's (height, width) in pixels."""
        return int(self.sizes[image, 0]), int(self.sizes[image, 1])

    def annotations(self, image: int) -> range:
        """Return the places of an image's annotations."""
        return range(int(self.ends[image - 1]) if image else 0, int(self.ends[image]))

    def read(self, image: int, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """Return an image as 8-bit RGB, turned as its annotations take it.

        Raises:
            ImageError: It cannot be read, or its size is no longer what it was.
        """
        pixels = read_rgb(self.path(image), max_pixels=max_pixels, upright=bool(self.upright[image]))
        if (pixels.height, pixels.width) != self.size(image):
            height, width = self.size(image)
            raise ImageError(f"{self.path(image)}: has {pixels.width}×{pixels.height} pixels, not {width}×{height}")
        return pixels


def read_coco(
    annotations: str | Path,
    images_folder: str | Path,
    *,
    with_masks: bool,
    skip_invalid: bool = False,
    classes: Sequence[str] | None = None,
) -> CocoSplit:
    """Read an annotation file and check all of it, and the headers of its images.

    Args:
        annotations: A COCO JSON file.
        images_folder: What the images' `file_name` is relative to.
        with_masks: Read and check segmentations too.
        skip_invalid: Leave out categories, images and annotations that cannot be used, and what belongs to them;
            `CocoSplit.skipped` counts them. Of entries with the same id, the first stays.
        classes: Names of the classes that a model knows, in its order; by default those of the file.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: The file cannot be used, or an entry of it cannot and `skip_invalid` is false; shows the first few
            problems, each with its image and its annotation, and counts them.
    """
    file, folder = Path(annotations), Path(images_folder)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such annotation file")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of images")
    content = _read_lists(file)
    problems = Problems(file)
    categories = _read_categories(content["categories"], problems, classes)
    images = _read_images(content["images"], problems, folder)
    store = _read_annotations(content["annotations"], problems, categories, images, with_masks=with_masks)
    if not skip_invalid:
        problems.raise_any()
    if not images.kept:
        raise ValueError(f"{file}: has no image that can be used{_reasons(problems)}")
    if not categories.kept:
        raise ValueError(f"{file}: has no category that can be used{_reasons(problems)}")
    number = len(store.annotations)
    boxes = np.array([annotation.xyxy for annotation in store.annotations], np.float64).reshape(number, 4)
    xywh = np.array([annotation.xywh for annotation in store.annotations], np.float64).reshape(number, 4)
    areas = np.array([math.nan if entry.area is None else entry.area for entry in store.annotations], np.float64)
    return CocoSplit(
        file=file,
        folder=folder,
        classes=tuple(category.name for category in categories.kept),
        category_ids=np.array([category.id for category in categories.kept], np.int64),
        image_ids=np.array([image.id for image in images.kept], np.int64),
        file_names=Texts.of(image.file_name for image in images.kept),
        sizes=np.array([(image.height, image.width) for image in images.kept], np.int32),
        upright=np.array(images.upright, bool),
        ends=np.cumsum(store.per_image, dtype=np.int64),
        annotation_ids=np.array([annotation.id for annotation in store.annotations], np.int64),
        boxes=boxes.astype(np.float32),
        boxes_xywh=xywh,
        labels=np.array([categories.place[entry.category_id] for entry in store.annotations], np.int64),
        areas=np.where(np.isnan(areas), xywh[:, 2] * xywh[:, 3], areas),
        is_crowd=np.array([annotation.is_crowd for annotation in store.annotations], bool),
        segmentations=store.outlines.stored() if with_masks else None,
        skipped=problems.skipped(),
    )


class _Kept(Generic[Entry]):
    """Categories or images that can be used, and the ids of those that cannot."""

    def __init__(self) -> None:
        self.kept: list[Entry] = []
        self.place: dict[int, int] = {}
        self.left_out: set[int] = set()
        self.upright: list[bool] = []


def _read_lists(file: Path) -> dict[str, list[Any]]:
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
            there = f"is {printable(content[name])}" if name in content else "is missing"
            raise ValueError(f"{file}: the list {name!r} {there}; a COCO file has {', '.join(LISTS)}")
    return content


def _read_categories(entries: list[Any], problems: Problems, classes: Sequence[str] | None) -> _Kept[Category]:
    result = _Kept[Category]()
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
                f"{problems.file}: has the categories {_some(unknown)}, which the model's {len(classes)} classes do "
                f"not include ({_some(list(classes))})"
            )
        result.kept = [Category(names.get(name, -1), name) for name in classes]
    result.place = {category.id: place for place, category in enumerate(result.kept) if category.id >= 0}
    return result


def _read_images(entries: list[Any], problems: Problems, folder: Path) -> _Kept[ImageEntry]:
    result = _Kept[ImageEntry]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about odd but readable files
        for image in _each(entries, read_image, problems, result):
            try:
                upright = _refers_to_upright(image, folder)
            except EntryError as error:
                problems.add(error.reason, str(error))
                result.left_out.add(image.id)
                continue
            result.place[image.id] = len(result.kept)
            result.kept.append(image)
            result.upright.append(upright)
    return result


def _refers_to_upright(image: ImageEntry, folder: Path) -> bool:
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
        stored = read_size(path)
        if stored == stated:
            return False
        turned = stored[::-1] == stated and read_orientation(path) >= 5
    except ImageError as error:
        raise EntryError("image cannot be read", f"{where} cannot be read: {error}") from error
    if not turned:
        raise EntryError(
            "image of another size",
            f"{where} has {stored[1]}×{stored[0]} pixels, and the annotations say {image.width}×{image.height}",
        )
    return True


def _each(
    entries: Iterable[Any], read: Callable[[object], Entry], problems: Problems, result: _Kept[Entry]
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


# --- annotations ------------------------------------------------------------------------------------------------


class _Outlines:
    """Outlines as they come, in growing arrays."""

    def __init__(self) -> None:
        self.ends, self.starts, self.lengths = array("q"), array("q"), array("q")
        self.is_runs, self.coordinates, self.runs = array("b"), array("d"), array("I")

    def add(self, outline: Outline) -> None:
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
        return Segmentations(
            ends=np.array(self.ends, np.int64),
            is_runs=np.array(self.is_runs, bool),
            starts=np.array(self.starts, np.int64),
            lengths=np.array(self.lengths, np.int64),
            coordinates=np.array(self.coordinates, np.float64),
            runs=np.array(self.runs, np.uint32),
        )


class _Store(NamedTuple):
    annotations: list[Annotation]
    per_image: NDArray[np.int64]
    outlines: _Outlines


def _read_annotations(
    entries: list[Any],
    problems: Problems,
    categories: _Kept[Category],
    images: _Kept[ImageEntry],
    *,
    with_masks: bool,
) -> _Store:
    store = _Store([], np.zeros(len(images.kept), np.int64), _Outlines())
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
    entries: list[Any], problems: Problems, categories: _Kept[Category], images: _Kept[ImageEntry]
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


def _reasons(problems: Problems) -> str:
    return "".join(f"; {reason}: {count}" for reason, count in problems.counts.most_common())


def _some(names: Sequence[str], limit: int = 5) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
