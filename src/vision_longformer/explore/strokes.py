"""What a person painted: strokes of classes over images, in a file that outlives the images' place.

Points are x and y in pixels of the image; the first pixel reaches from 0 to 1. H×W tokens of the finest stage, p points
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_longformer.padding import Size
from vision_longformer.segmentation.token_head import MAX_CLASSES
from vision_longformer.utils import strict_json
from vision_longformer.utils.atomic_files import replacing

FORMAT_VERSION = 1
MAX_POINTS, MAX_STROKES, MAX_NAME, MAX_RADIUS = 10_000, 100_000, 100, 1e6
MAX_PLACE = 1e8  # pixels
DEFAULT_CLASSES = ("background", "object")


@dataclass(frozen=True)
class Stroke:
    """A line of a round brush.

    Attributes:
        label: Number of the class; None erases what was painted below.
        points: (x, y) in pixels of the image, at least one.
        radius: Of the brush, in pixels of the image.

    Raises:
        ValueError: A number is out of range.
    """

    label: int | None
    points: tuple[tuple[float, float], ...]
    radius: float

    def __post_init__(self) -> None:
        if self.label is not None and not 0 <= self.label < MAX_CLASSES:
            raise ValueError(f"class={self.label}: must be from 0 to {MAX_CLASSES - 1}")
        if not 1 <= len(self.points) <= MAX_POINTS:
            raise ValueError(f"points: a stroke has 1 to {MAX_POINTS:,} of them, not {len(self.points):,}")
        if not all(math.isfinite(place) and abs(place) <= MAX_PLACE for point in self.points for place in point):
            raise ValueError("points: must be numbers of pixels")
        if not 0 <= self.radius <= MAX_RADIUS:
            raise ValueError(f"radius={self.radius:g}: must be from 0 to {MAX_RADIUS:g} pixels")

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can store, for `from_dict`."""
        return {"class": self.label, "points": [list(point) for point in self.points], "radius": self.radius}

    @classmethod
    def from_dict(cls, values: Any) -> Stroke:
        """Build what `to_dict` described.

        Raises:
            ValueError: Something of it is impossible.
        """
        try:
            label = values["class"]
            if label is not None and type(label) is not int:
                raise TypeError("class must be a whole number or null")
            points = tuple((float(x), float(y)) for x, y in values["points"])
            return cls(label, points, float(values["radius"]))
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"a stroke is damaged: {error}") from error


@dataclass(frozen=True)
class Project:
    """Classes, and strokes over images.

    Attributes:
        classes: Names, by number.
        strokes: Of images, by the digest of their contents, in the order in which they were painted.
        names: Of these images, for people.
    """

    classes: tuple[str, ...] = DEFAULT_CLASSES
    strokes: Mapping[str, tuple[Stroke, ...]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= MAX_CLASSES:
            raise ValueError(f"classes: there must be 1 to {MAX_CLASSES}, not {len(self.classes)}")
        for name in self.classes:
            if not isinstance(name, str) or not 1 <= len(name.strip()) <= MAX_NAME or not name.isprintable():
                raise ValueError(f"classes: {str(name)[:MAX_NAME]!r} is no name of 1 to {MAX_NAME} letters")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: two have the same name")
        if sum(map(len, self.strokes.values())) > MAX_STROKES:
            raise ValueError(f"strokes: there are more than {MAX_STROKES:,}")
        for stroke in (stroke for strokes in self.strokes.values() for stroke in strokes):
            if stroke.label is not None and stroke.label >= len(self.classes):
                raise ValueError(f"a stroke is of class number {stroke.label}, and there are {len(self.classes)}")

    def of(self, digest: str) -> tuple[Stroke, ...]:
        """Return the strokes over an image."""
        return self.strokes.get(digest, ())

    def with_strokes(self, digest: str, strokes: Sequence[Stroke], *, name: str) -> Project:
        """Return the same with other strokes over an image."""
        return replace(self, strokes={**self.strokes, digest: tuple(strokes)}, names={**self.names, digest: name})

    def save(self, path: Path) -> None:
        """Write a file, whole or not at all.

        Raises:
            OSError: It cannot be written.
        """
        images = {
            digest: {"name": self.names.get(digest, ""), "strokes": [stroke.to_dict() for stroke in strokes]}
            for digest, strokes in self.strokes.items()
        }
        values = {
            "format_version": FORMAT_VERSION,
            "content": "strokes",
            "classes": list(self.classes),
            "images": images,
        }
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Project:
        """Read what `save` wrote.

        Raises:
            OSError: It cannot be read.
            ValueError: It is no file of strokes, or a damaged one.
        """
        try:
            values = strict_json.parse(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict) or values.get("content") != "strokes":
                raise ValueError("it holds no strokes")
            if values.get("format_version") != FORMAT_VERSION:
                raise ValueError(f"format_version is {values.get('format_version')!r}, expected {FORMAT_VERSION}")
            images = values["images"]
            strokes = {str(digest): tuple(map(Stroke.from_dict, image["strokes"])) for digest, image in images.items()}
            names = {str(digest): str(image["name"]) for digest, image in images.items()}
            return cls(tuple(values["classes"]), strokes, names)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: is no file of strokes of `vil explore`, or a damaged one ({error})") from error


def covered(stroke: Stroke, *, stride: int, size: Size) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (rows, columns) of the tokens that a stroke covers.

    These are the tokens whose middle is no farther from the stroke's line than its radius, and those that its points
    lie in.

    Args:
        stroke: The stroke.
        stride: Pixels per token.
        size: (H, W) tokens.
    """
    height, width = size
    points = np.array(stroke.points)  # (p, 2)
    inside = np.floor(points[:, ::-1] / stride).astype(np.int64)
    inside = inside[((inside >= 0) & (inside < [height, width])).all(axis=1)]
    found = [inside]
    for start, end in zip(points, points[1:] if len(points) > 1 else points, strict=False):
        low, high = np.minimum(start, end) - stroke.radius, np.maximum(start, end) + stroke.radius
        left, top = np.clip(np.floor(low / stride), 0, [width, height]).astype(int)
        right, bottom = np.clip(np.ceil(high / stride), 0, [width, height]).astype(int)
        if left < right and top < bottom:
            near = _distances(start, end, np.arange(top, bottom), np.arange(left, right), stride) <= stroke.radius
            found.append(np.argwhere(near) + np.array([top, left]))
    cells = np.unique(np.concatenate(found), axis=0)
    return cells[:, 0], cells[:, 1]


def _distances(
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    stride: int,
) -> NDArray[np.float64]:
    """Return the (rows, columns) distances of tokens' middles to a line from (x, y) `start` to `end`, in pixels."""
    y, x = (rows + 0.5)[:, None] * stride, (columns + 0.5)[None] * stride
    along = end - start
    length = float(along @ along)
    share = 0.0 if length == 0 else np.clip(((x - start[0]) * along[0] + (y - start[1]) * along[1]) / length, 0, 1)
    distances: NDArray[np.float64] = np.hypot(x - start[0] - share * along[0], y - start[1] - share * along[1])
    return distances


@dataclass(frozen=True)
class Painted:
    """Tokens that were painted, each by the last stroke over it.

    Attributes:
        rows: (n,).
        columns: (n,).
        labels: (n,) class numbers.
        strokes: (n,) numbers of the strokes.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    labels: NDArray[np.int64]
    strokes: NDArray[np.int64]


def painted(strokes: Sequence[Stroke], *, stride: int, size: Size) -> Painted:
    """Return the tokens of the finest stage that strokes leave painted, sorted by row and column."""
    tokens = [_places(stroke, stride, size) for stroke in strokes]
    places = np.concatenate([np.zeros(0, np.int64), *tokens[::-1]])  # the last strokes first
    numbers = np.repeat(np.arange(len(strokes))[::-1], [len(own) for own in tokens[::-1]])
    places, first = np.unique(places, return_index=True)
    labels = np.array([-1 if stroke.label is None else stroke.label for stroke in strokes], np.int64)
    kept = labels[numbers[first]] >= 0  # not erased
    places, numbers = places[kept], numbers[first][kept]
    return Painted(places // size[1], places % size[1], labels[numbers], numbers)


@functools.lru_cache(4096)
def _places(stroke: Stroke, stride: int, size: Size) -> NDArray[np.int64]:
    """Return the tokens that a stroke covers, counted along rows: a new stroke asks for those of all others again."""
    rows, columns = covered(stroke, stride=stride, size=size)
    return rows * size[1] + columns
