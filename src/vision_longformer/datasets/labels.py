"""Where the labels of images for detection and segmentation come from.

A source is a form that people have labels in. What it gives is a `CocoSplit`, of objects, or a `SemanticSplit`, of
classes of pixels; a new one is a function and an entry in `SOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision_longformer.datasets.coco import CocoSplit, read_coco
from vision_longformer.datasets.geojson import geojson_files, reading_geojson
from vision_longformer.datasets.instances import reading_instances
from vision_longformer.datasets.label_files import layouts
from vision_longformer.datasets.semantic import (
    BACKGROUND,
    IGNORE_INDEX,
    SemanticSplit,
    coco_classes,
    reading_semantic,
)
from vision_longformer.images import AS_STORED, MAX_PIXELS, Reading
from vision_longformer.utils.steps import Steps

Split = CocoSplit | SemanticSplit
What = Literal["boxes", "masks", "classes"]


@dataclass(frozen=True)
class Wanted:
    """What a task needs of labels.

    Attributes:
        what: Boxes of objects, these and their masks, or classes of pixels.
        source: A name in `SOURCES`; auto takes the first that is there.
        classes: Names of the classes that a model knows; None to take those of the data.
        class_name: Of objects in label images, where `classes` does not say.
        label_values: See `semantic.Coding`, as for the next.
        ignored: Value of pixels without a class.
        skip_invalid: Leave out what cannot be used.
        read_labels: Read all index images now, not only their headers.
        max_pixels: Refuse larger labels.
        reading: How images are read.
    """

    what: What
    source: str = "auto"
    classes: tuple[str, ...] | None = None
    class_name: str = "object"
    label_values: tuple[int, ...] | None = None
    ignored: int | None = IGNORE_INDEX
    skip_invalid: bool = False
    read_labels: bool = True
    max_pixels: int = MAX_PIXELS
    reading: Reading = AS_STORED

    @property
    def object_classes(self) -> tuple[str, ...] | None:
        """`classes` without that of pixels outside of objects."""
        return self.classes[1:] if self.classes is not None and self.what == "classes" else self.classes


class LabelSource(NamedTuple):
    """A form of labels.

    Attributes:
        of_objects: Whether it tells objects apart; every source gives classes of pixels.
        is_there: Whether DIR has such labels of a split.
        read: Reads them.
        layout: Where they lie, for messages.
    """

    of_objects: bool
    is_there: Callable[[Path, str, Wanted], bool]
    read: Callable[[Path, str, Wanted], Steps[Split]]
    layout: Callable[[str], str]


def read_labels(data: Path, split: str, wanted: Wanted) -> Steps[Split]:
    """Read the labels of a split.

    Raises:
        ValueError: They cannot be used, or their source does not give what is wanted.
        FileNotFoundError: There are none.
    """
    source = SOURCES[_found(data, split, wanted) if wanted.source == "auto" else wanted.source]
    if wanted.what != "classes" and not source.of_objects:
        raise ValueError(f"dense.labels={wanted.source!r}: tells classes of pixels, and no objects")
    return (yield from source.read(data, split, wanted))


def class_names(split: Split, what: str) -> tuple[str, ...]:
    """Return the names of what is told apart: with "classes" of objects, the background too."""
    return coco_classes(split) if what == "classes" and isinstance(split, CocoSplit) else split.classes


def class_counts(split: Split) -> dict[str, int] | None:
    """Return how often each class occurs, in objects or pixels; None if labels were not read."""
    if isinstance(split, SemanticSplit):
        counts = None if split.counts is None else split.counts[:-1]
    else:
        counts = np.bincount(split.labels[~split.is_crowd], minlength=len(split.classes))
    return None if counts is None else dict(zip(split.classes, counts.tolist(), strict=True))


def pixel_counts(split: Split) -> NDArray[np.float64] | None:
    """Return how many pixels each class of `class_names(split, "classes")` has; None if labels were not read.

    Of objects these are their areas, and the background is the rest: where objects overlap, both count.
    """
    if isinstance(split, SemanticSplit):
        return None if split.counts is None else split.counts[:-1].astype(np.float64)
    areas = np.bincount(split.labels, weights=split.areas, minlength=len(split.classes))
    pixels = float(np.prod(split.sizes.astype(np.float64), axis=1).sum())
    return np.concatenate([[max(0.0, pixels - areas.sum())], areas])


def _found(data: Path, split: str, wanted: Wanted) -> str:
    """Return the name of the first source that is there and gives what is wanted."""
    possible = {name: source for name, source in SOURCES.items() if source.of_objects or wanted.what == "classes"}
    for name, source in possible.items():
        if source.is_there(data, split, wanted):
            return name
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: no such folder")
    expected = "; or ".join(source.layout(split) for source in possible.values())
    if wanted.what != "classes" and (data / "classes.txt").is_file():
        expected += f". ({data}/classes.txt says that label images hold classes; dense.labels=instances overrules it)"
    raise FileNotFoundError(f"{data}: has no labels of {split}. Expected: {expected}")


def _coco_is_there(data: Path, split: str, wanted: Wanted) -> bool:
    return (data / f"{split}.json").is_file() and _objects_fit(wanted)


def _objects_fit(wanted: Wanted) -> bool:
    """Tell whether labels of objects can be meant: they begin with the background, else labels are index images."""
    return wanted.what != "classes" or wanted.classes is None or wanted.classes[0] == BACKGROUND


def _read_coco(data: Path, split: str, wanted: Wanted) -> Steps[Split]:
    yield from ()
    return read_coco(
        data / f"{split}.json",
        data / split,
        with_masks=wanted.what != "boxes",
        skip_invalid=wanted.skip_invalid,
        classes=wanted.object_classes,
        reading=wanted.reading,
    )


def _index_is_there(data: Path, split: str, wanted: Wanted) -> bool:
    if wanted.classes is None:
        return (data / "classes.txt").is_file()
    # a background and one other class: of label images of objects all numbers but 0 are that one
    return (data / "classes.txt").is_file() or wanted.classes[0] != BACKGROUND or len(wanted.classes) > 2


def _read_index(data: Path, split: str, wanted: Wanted) -> Steps[Split]:
    return (
        yield from reading_semantic(
            data,
            split,
            classes=wanted.classes,
            values=wanted.label_values,
            ignore_index=wanted.ignored,
            skip_invalid=wanted.skip_invalid,
            read_labels=wanted.read_labels,
            max_pixels=wanted.max_pixels,
            reading=wanted.reading,
        )
    )


def _instances_are_there(data: Path, split: str, wanted: Wanted) -> bool:
    """Where classes of pixels are wanted, numbers might be classes: somebody must say that they are objects."""
    known = wanted.what != "classes" or wanted.classes is not None
    return known and (data / split).is_dir() and not (data / "classes.txt").is_file()


def _read_instances(data: Path, split: str, wanted: Wanted) -> Steps[Split]:
    return (
        yield from reading_instances(
            data,
            split,
            classes=wanted.object_classes or (wanted.class_name,),
            with_masks=wanted.what != "boxes",
            skip_invalid=wanted.skip_invalid,
            max_pixels=wanted.max_pixels,
            reading=wanted.reading,
        )
    )


def _geojson_is_there(data: Path, split: str, wanted: Wanted) -> bool:
    of_pixels = wanted.what == "classes" and (data / "classes.txt").is_file()
    return not of_pixels and (data / split).is_dir() and _objects_fit(wanted) and bool(geojson_files(data, split)[0])


def _read_geojson(data: Path, split: str, wanted: Wanted) -> Steps[Split]:
    return (
        yield from reading_geojson(
            data,
            split,
            classes=wanted.object_classes,
            class_name=wanted.class_name,
            background=BACKGROUND if wanted.what == "classes" else None,
            with_masks=wanted.what != "boxes",
            skip_invalid=wanted.skip_invalid,
            reading=wanted.reading,
        )
    )


SOURCES = {
    "coco": LabelSource(
        True, _coco_is_there, _read_coco, lambda split: f"{split}.json (COCO's) and its images in {split}/"
    ),
    "geojson": LabelSource(
        True,
        _geojson_is_there,
        _read_geojson,
        lambda split: f"{split}/NAME.tif with its polygons in {split}/NAME.geojson (QuPath's, or of `vil predict`)",
    ),
    "index": LabelSource(
        False,
        _index_is_there,
        _read_index,
        lambda split: f"classes.txt and images whose pixels hold classes: {layouts(split)}",
    ),
    "instances": LabelSource(
        True,
        _instances_are_there,
        _read_instances,
        lambda split: f"images whose pixels hold an integer for each object (dense.labels=instances): {layouts(split)}",
    ),
}
