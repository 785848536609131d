"""Checks of single entries of a COCO annotation file: categories, images, annotations.

Each takes what JSON held, of which nothing is known yet, and returns what it means, or raises `EntryError` with a
reason (the same for all entries of its kind) and a sentence.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vision_longformer.datasets.problems import printable, quoted
from vision_longformer.masks import run_lengths

MAX_SIDE = 10**6  # pixels
BOX_TOLERANCE = 1.0  # pixels beyond the image's edge, which rounding explains; such boxes are clipped
_MISSING = object()


class EntryError(ValueError):
    """An entry of the file cannot be used."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class Category(NamedTuple):
    """A category of the file."""

    id: int
    name: str


class ImageEntry(NamedTuple):
    """An image of the file."""

    id: int
    file_name: str
    height: int
    width: int


class Annotation(NamedTuple):
    """An annotation of the file.

    Attributes:
        xywh: The box as the file has it.
        xyxy: The box within the image.
        area: In pixels; None where the file does not say.
    """

    id: int
    image_id: int
    category_id: int
    xywh: tuple[float, float, float, float]
    xyxy: tuple[float, float, float, float]
    area: float | None
    is_crowd: bool


@dataclass(frozen=True)
class Outline:
    """The polygons of an annotation, or its run lengths, one of the two."""

    polygons: tuple[array[float], ...]
    runs: np.ndarray[Any, np.dtype[np.uint32]] | None


def is_id(value: object) -> bool:
    """Say whether a value can be an id: a whole number from 0 on that fits into 64 bits; true and false are none."""
    return type(value) is int and 0 <= value < 2**63


def is_finite(value: object) -> bool:
    """Say whether a value is a number with which floating-point arithmetic is possible."""
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return type(value) is float and math.isfinite(value)


def read_category(entry: object) -> Category:
    """Check an entry of `categories`."""
    reason = "unusable category"
    if not isinstance(entry, dict):
        raise EntryError(reason, f"a category is {quoted(entry)}, not a mapping")
    category_id, name = entry.get("id"), entry.get("name")
    if not is_id(category_id):
        raise EntryError(
            reason, f"a category ({_name(name)}) has the id {quoted(category_id)}, not a whole number from 0 on"
        )
    if not _is_text(name):
        raise EntryError(reason, f"category {category_id} has the name {quoted(name)}, not a text")
    assert isinstance(category_id, int)
    assert isinstance(name, str)
    return Category(category_id, name)


def read_image(entry: object) -> ImageEntry:
    """Check an entry of `images`."""
    reason = "unusable image entry"
    if not isinstance(entry, dict):
        raise EntryError(reason, f"an image is {quoted(entry)}, not a mapping")
    image_id, file_name = entry.get("id"), entry.get("file_name")
    if not is_id(image_id):
        raise EntryError(
            reason, f"image {_name(file_name)} has the id {quoted(image_id)}, not a whole number from 0 on"
        )
    if not _is_text(file_name):
        raise EntryError(reason, f"image {image_id} has the file_name {quoted(file_name)}, not a text")
    sides = []
    for name in ("height", "width"):
        side: Any = entry.get(name)
        if not is_finite(side) or side != int(side) or not 1 <= side <= MAX_SIDE:
            raise EntryError(
                reason,
                f"image {image_id} ({_name(file_name)}) has the {name} {quoted(side)}, "
                f"not a whole number from 1 to {MAX_SIDE}",
            )
        sides.append(int(side))
    if sides[0] * sides[1] > run_lengths.MAX_PIXELS_OF_RUNS:
        raise EntryError(reason, f"image {image_id} ({_name(file_name)}) has {sides[0]}×{sides[1]} pixels, too many")
    assert isinstance(image_id, int)
    assert isinstance(file_name, str)
    return ImageEntry(image_id, file_name, sides[0], sides[1])


def identity(entry: object) -> tuple[int, int, int]:
    """Return the id, the image id and the category id of an entry of `annotations`."""
    reason = "unusable annotation entry"
    if not isinstance(entry, dict):
        raise EntryError(reason, f"an annotation is {quoted(entry)}, not a mapping")
    annotation_id, image_id, category_id = entry.get("id"), entry.get("image_id"), entry.get("category_id")
    if not is_id(annotation_id):
        where = f"an annotation of image {quoted(image_id)}"
        raise EntryError(reason, f"{where} has the id {quoted(annotation_id)}, not a whole number from 0 on")
    for name, value in (("image_id", image_id), ("category_id", category_id)):
        if not is_id(value):
            raise EntryError(
                reason, f"annotation {annotation_id} has the {name} {quoted(value)}, not a whole number from 0 on"
            )
    return annotation_id, image_id, category_id  # type: ignore[return-value]


def read_annotation(entry: dict[str, Any], *, size: tuple[int, int], where: str) -> Annotation:
    """Check an entry of `annotations`, but for its identity and its segmentation.

    Args:
        entry: What the file has.
        size: (height, width) of its image.
        where: Names annotation and image, to begin a sentence.
    """
    box = entry.get("bbox", _MISSING)
    if box is _MISSING:
        raise EntryError("no box", f"{where} has no bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        raise EntryError("unusable box", f"{where} has the bbox {quoted(box)}, not four numbers (x, y, width, height)")
    x, y, width, height = map(float, box)
    if width <= 0 or height <= 0:
        raise EntryError("box without area", f"{where} has the bbox {quoted(box)}, which has no area")
    beyond = max(-x, -y, x + width - size[1], y + height - size[0])
    clipped = (max(x, 0.0), max(y, 0.0), min(x + width, float(size[1])), min(y + height, float(size[0])))
    if beyond > BOX_TOLERANCE or clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        raise EntryError(
            "box outside of its image",
            f"{where} has the bbox {quoted(box)}, which reaches out of its image of {_sides(size)}",
        )
    area = entry.get("area")
    if area is not None and (not is_finite(area) or area < 0):
        raise EntryError("unusable area", f"{where} has the area {quoted(area)}, not a number from 0 on")
    is_crowd = entry.get("iscrowd", 0)
    if is_crowd not in (0, 1):
        stated = "null" if is_crowd is None else quoted(is_crowd)
        raise EntryError(
            "unusable iscrowd", f"{where} has iscrowd {stated}, neither 0 nor 1; 0 is an object, 1 a region of many"
        )
    return Annotation(
        entry["id"],
        entry["image_id"],
        entry["category_id"],
        (x, y, width, height),
        clipped,
        None if area is None else float(area),
        bool(is_crowd),
    )


def read_segmentation(entry: dict[str, Any], *, size: tuple[int, int], where: str) -> Outline:
    """Check an annotation's segmentation: polygons, or run lengths, compressed or not."""
    segmentation = entry.get("segmentation", _MISSING)
    if segmentation is _MISSING or segmentation is None or segmentation == []:
        raise EntryError("no segmentation", f"{where} has no segmentation")
    if isinstance(segmentation, list):
        return Outline(tuple(_polygon(polygon, size, where) for polygon in segmentation), None)
    if isinstance(segmentation, dict):
        return Outline((), _runs(segmentation, size, where))
    raise EntryError(
        "unusable segmentation",
        f"{where} has the segmentation {quoted(segmentation)}, neither polygons nor run lengths",
    )


def _polygon(polygon: object, size: tuple[int, int], where: str) -> array[float]:
    reason = "unusable polygon"
    if not isinstance(polygon, list) or not set(map(type, polygon)) <= {int, float}:
        raise EntryError(reason, f"{where} has the polygon {quoted(polygon)}, not a list of numbers")
    if len(polygon) % 2:
        raise EntryError(reason, f"{where} has a polygon of {len(polygon)} numbers, which are no pairs of x and y")
    if len(polygon) < 6:
        raise EntryError(reason, f"{where} has a polygon of {len(polygon) // 2} points; it takes three")
    try:
        values = array("d", polygon)
    except OverflowError as error:
        raise EntryError(reason, f"{where} has a polygon with a number that is too large") from error
    for name, coordinates, side in (("x", values[0::2], size[1]), ("y", values[1::2], size[0])):
        if any(map(math.isnan, coordinates)):
            raise EntryError(reason, f"{where} has a polygon with a point whose {name} is NaN, no number")
        low, high = min(coordinates), max(coordinates)
        # Compiled code walks along the edges, so far points cost memory.
        if low < -side or high > 2 * side:
            raise EntryError(
                reason, f"{where} has a polygon with {name} from {low:g} to {high:g}, far outside of {_sides(size)}"
            )
        if low > side or high < 0:
            raise EntryError(reason, f"{where} has a polygon that lies outside of its image of {_sides(size)}")
    return values


def _runs(segmentation: dict[str, Any], size: tuple[int, int], where: str) -> Any:
    reason = "unusable run lengths"
    stated = segmentation.get("size")
    if stated != list(size):
        raise EntryError(
            reason,
            f"{where} has run lengths of size {quoted(stated)} (height, width), and its image has {list(size)}",
        )
    counts = segmentation.get("counts")
    try:
        if isinstance(counts, str):
            return run_lengths.checked(run_lengths.decode(counts), size=size)
        if isinstance(counts, list) and set(map(type, counts)) <= {int}:
            return run_lengths.checked(counts, size=size)
    except ValueError as error:
        raise EntryError(reason, f"{where} has unusable run lengths: {error}") from error
    raise EntryError(reason, f"{where} has the counts {quoted(counts)}, neither a text nor a list of whole numbers")


def _is_text(value: object) -> bool:
    """Say whether a value is a text that can be stored, printed and be a file's name."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write
        return False
    return True


def _name(value: object) -> str:
    return printable(value) if isinstance(value, str) else "without name"


def _sides(size: tuple[int, int]) -> str:
    return f"{size[1]}×{size[0]} pixels"
