"""What a predictor says of one image: the objects in it, the class of each of its pixels, or its own classes.

n objects, H×W image. Coordinates are those of the image file: a pixel is a square, the first from 0 to 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.images import Reader
from vision_longformer.masks.rle import Mask, nearest, rle_to_crop, rle_to_mask
from vision_longformer.prediction.colours import Colour, class_colour, pixel_class_colour
from vision_longformer.prediction.measures import Crop, ImageFacts, Measures, measure_boxes, measure_masks
from vision_longformer.prediction.polygons import Geometry, box_to_polygon, mask_to_polygon
from vision_longformer.segmentation.streamed.label_file import LabelFile

if TYPE_CHECKING:
    import pandas

Kind = Literal["objects", "pixels", "classes"]
Coordinates = Literal["auto", "pixels", "map"]
ROWS = 256  # of a label image that are counted at once
MISSING_PANDAS = "a table needs pandas: pip install 'vision-longformer[tables]'"


def _no_picture() -> Image.Image:
    raise ValueError("this result was read from a file and has no image: give one (image)")


def _no_reader() -> Reader:
    raise ValueError("this result was read from a file, or its reader is closed: it has no image")


class MaskSequence(Sequence[Mask]):
    """The (H, W) masks of objects, each made when it is asked for: all together may be far more than memory."""

    def __init__(self, make: Callable[[int], Mask], count: int) -> None:
        self._make, self._count = make, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Mask: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mask]: ...
    def __getitem__(self, index: int | slice) -> Mask | Sequence[Mask]:
        if isinstance(index, slice):
            return [self._make(number) for number in range(self._count)[index]]
        return self._make(range(self._count)[index])


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(ABC):
    """What a predictor says of one image.

    Attributes:
        image: The image.
        class_names: Of the model, by class number.
        picture: Returns the image, RGB, or a smaller picture of a large one, to draw on.
        reader: Opens the image, as the model read it, again.
    """

    kind: ClassVar[Kind]

    image: ImageFacts
    class_names: tuple[str, ...]
    picture: Callable[[], Image.Image] = field(default=_no_picture, repr=False)
    reader: Callable[[], Reader] = field(default=_no_reader, repr=False)

    @abstractmethod
    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield what a table has of this result: a row for each object, or for each class."""

    def to_dataframe(self) -> pandas.DataFrame:
        """Return `rows` as a table of pandas.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(MISSING_PANDAS) from error
        return pandas.DataFrame(list(self.rows()))

    def save(self, path: str | Path, *, format: str | None = None) -> Path:
        """Write the result; what was there is replaced once all is on disk.

        Args:
            path: A file, or a folder ending in .zarr.
            format: One of `prediction.formats.FORMATS`; by default what the path's ending says.

        Returns:
            The path.

        Raises:
            ValueError: No format has this ending, or it is not for such a result.
            ImportError: A package is missing; the message says how to install it.
            OSError: It cannot be written.
        """
        from vision_longformer.prediction.formats import write_result

        return write_result(Path(path), self, format=format)


@dataclass(frozen=True, eq=False, kw_only=True)
class RegionsResult(Result):
    """What has places in the image: objects, or the classes of pixels.

    Attributes:
        tiles: How many parts the image was looked at in.
        streamed: Whether it went through the model band by band, which leaves no seam; `tiles` is 1 then.
        tolerance: Pixels by which outlines may be moved to have fewer vertices; 0 for the exact edges of pixels.
    """

    tiles: int = 1
    streamed: bool = False
    tolerance: float = 0.0

    @abstractmethod
    def colour(self, number: int) -> Colour:
        """Return the colour of a class, the same in pictures and files."""

    @property
    @abstractmethod
    def label_type(self) -> np.dtype[Any]:
        """Type of the values of `label_rows`."""

    @property
    @abstractmethod
    def no_data(self) -> int | None:
        """The value of pixels that the image does not have; None where it has all."""

    @abstractmethod
    def label_rows(self, top: int, bottom: int) -> NDArray[Any]:
        """Return rows of the label image, (bottom − top, W): see `labels` of the result."""

    @abstractmethod
    def polygons(self) -> list[Geometry]:
        """Return outlines in pixels of the image, as Shapely's geometries: one for each object, or for each class."""

    @abstractmethod
    def plot(self, image: Image.Image | None = None) -> Image.Image:
        """Return the image with what was found drawn on it.

        Args:
            image: What to draw on; by default the image itself, or a smaller picture of one that is large.
        """

    def to_geojson(self, *, coordinates: Coordinates = "auto") -> dict[str, Any]:
        """Return a FeatureCollection, as QuPath, QGIS and GDAL read it: see `prediction.formats.geojson`.

        Args:
            coordinates: "pixels"; "map", in the coordinate system of a georeferenced image; or "auto", "map" where the
                image has one.

        Raises:
            ValueError: Map coordinates of an image without georeference.
        """
        from vision_longformer.prediction.formats.geojson import feature_collection

        return feature_collection(self, coordinates=coordinates)


@dataclass(frozen=True, eq=False, kw_only=True)
class ObjectsResult(RegionsResult):
    """The objects that a detector found, best first.

    Attributes:
        objects: Boxes, scores, class numbers, and run lengths of masks.
    """

    kind = "objects"
    no_data = 0  # where no object is

    objects: FoundObjects

    def __len__(self) -> int:
        return len(self.objects.boxes)

    def colour(self, number: int) -> Colour:
        return class_colour(number)

    @property
    def boxes(self) -> NDArray[np.floating[Any]]:
        """(n, 4) x1, y1, x2, y2."""
        return self.objects.boxes

    @property
    def scores(self) -> NDArray[np.floating[Any]]:
        """(n,) from 0 to 1."""
        return self.objects.scores

    @property
    def class_numbers(self) -> NDArray[np.integer[Any]]:
        """(n,) indices into `class_names`."""
        return self.objects.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the n objects' classes."""
        return tuple(self.class_names[number] for number in self.objects.labels.tolist())

    @property
    def masks(self) -> Sequence[Mask] | None:
        """n masks (H, W); None of a detector without masks."""
        rles = self.objects.masks
        return None if rles is None else MaskSequence(lambda index: rle_to_mask(rles[index]), len(rles))

    @property
    def labels(self) -> NDArray[Any]:
        """(H, W) numbers of objects, from 1, the best one where several overlap; 0 where there is none."""
        return self.label_rows(0, self.image.size[0])

    @property
    def label_type(self) -> np.dtype[Any]:
        return np.dtype(np.uint32)

    @cached_property
    def crops(self) -> list[Crop]:
        """Each object's mask, cut to what it covers, and its (row, column); of boxes, the pixels in their middle."""
        if self.objects.masks is not None:
            return [rle_to_crop(rle) for rle in self.objects.masks]
        height, width = self.image.size
        edges = np.clip(np.ceil(self.boxes - 0.5), 0, [width, height, width, height]).astype(int)
        return [(np.ones((max(0, y2 - y1), max(0, x2 - x1)), bool), (y1, x1)) for x1, y1, x2, y2 in edges.tolist()]

    def label_rows(self, top: int, bottom: int) -> NDArray[Any]:
        rows = np.zeros((bottom - top, self.image.size[1]), np.uint32)
        for number in range(len(self), 0, -1):  # the best one last
            mask, (row, column) = self.crops[number - 1]
            first, last = max(top, row), min(bottom, row + mask.shape[0])
            if first < last:
                part = rows[first - top : last - top, column : column + mask.shape[1]]
                part[mask[first - row : last - row]] = number
        return rows

    @cached_property
    def measures(self) -> Measures:
        """Areas, perimeters and centroids in pixels."""
        return measure_boxes(self.boxes) if self.objects.masks is None else measure_masks(self.crops)

    def polygons(self) -> list[Geometry]:
        if self.objects.masks is None:
            return [box_to_polygon(box) for box in self.boxes]
        return [mask_to_polygon(mask, corner=corner, tolerance=self.tolerance) for mask, corner in self.crops]

    def rows(self) -> Iterator[dict[str, Any]]:
        from vision_longformer.prediction.formats.rows import object_rows

        return object_rows(self)

    def to_coco(self, *, image_id: int = 1) -> list[dict[str, Any]]:
        """Return the objects as COCO's results have them; the category of class number k is k + 1."""
        from vision_longformer.prediction.formats.coco import coco_entries

        return list(coco_entries(self, image_id))

    def to_supervision(self) -> Any:
        """Return `supervision.Detections`, with names of classes as their "class_name".

        Raises:
            ImportError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("it needs supervision: pip install supervision") from error
        masks = None if self.masks is None else np.array(list(self.masks), bool).reshape(-1, *self.image.size)
        return supervision.Detections(
            xyxy=np.asarray(self.boxes, np.float32).reshape(-1, 4),
            mask=masks,
            confidence=np.asarray(self.scores, np.float32),
            class_id=np.asarray(self.class_numbers, int),
            data={"class_name": np.array(self.classes, dtype=str)},
        )

    def plot(self, image: Image.Image | None = None) -> Image.Image:
        from vision_longformer.prediction.draw_objects import draw_objects

        image = self.picture() if image is None else image
        return draw_objects(image, self.objects, classes=self.class_names, size=self.image.size)


@dataclass(frozen=True, eq=False, kw_only=True)
class SemanticResult(RegionsResult):
    """The class of every pixel.

    Attributes:
        labels: (H, W) class numbers; `no_data` where `valid` is false.
        label_file: The same of an image that was streamed, whose `labels` are mapped into memory: read by rows, they
            take none.
        valid: (H, W) booleans, false where the image has no pixel; None where it has all.
    """

    kind = "pixels"

    labels: NDArray[Any]
    label_file: LabelFile | None = None
    valid: Mask | None = None

    def colour(self, number: int) -> Colour:
        return pixel_class_colour(number)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by number."""
        return self.class_names

    @property
    def label_type(self) -> np.dtype[Any]:
        return self.labels.dtype

    @property
    def no_data(self) -> int | None:
        return None if self.valid is None else int(np.iinfo(self.labels.dtype).max)

    @property
    def masks(self) -> Sequence[Mask]:
        """A mask (H, W) for each class."""
        return MaskSequence(lambda number: np.asarray(self.labels == number), len(self.class_names))

    @cached_property
    def pixels(self) -> NDArray[np.int64]:
        """Number of pixels of each class."""
        count, height = len(self.class_names), self.image.size[0]
        found = np.zeros(count, np.int64)
        for top in range(0, height, ROWS):
            rows = self.label_rows(top, min(top + ROWS, height))
            found += np.bincount(rows.ravel(), minlength=count)[:count]
        return found

    def label_rows(self, top: int, bottom: int) -> NDArray[Any]:
        return self.labels[top:bottom] if self.label_file is None else self.label_file.rows(top, bottom)

    def polygons(self) -> list[Geometry]:
        return [mask_to_polygon(mask, tolerance=self.tolerance) for mask in self.masks]

    def rows(self) -> Iterator[dict[str, Any]]:
        from vision_longformer.prediction.formats.rows import class_rows

        return class_rows(self.image, self.class_names, self.pixels.tolist())

    def plot(self, image: Image.Image | None = None, *, legend: bool = False) -> Image.Image:
        """Return the image with its classes in colours.

        Args:
            image: What to draw on; by default the image itself, or a smaller picture of one that is large.
            legend: Name the classes in a bar below.
        """
        from vision_longformer.prediction.draw_segmentation import draw_classes

        image = self.picture() if image is None else image
        rows, columns = nearest(self.image.size[0], image.height), nearest(self.image.size[1], image.width)
        labels = np.stack([self.label_rows(row, row + 1)[0, columns] for row in rows.tolist()])
        return draw_classes(image, labels, classes=self.class_names, legend=legend)


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassesResult(Result):
    """The most probable classes of an image, most probable first.

    Attributes:
        classes: Their names.
        class_numbers: Indices into `class_names`.
        scores: Their probabilities.
    """

    kind = "classes"

    classes: tuple[str, ...]
    class_numbers: tuple[int, ...]
    scores: tuple[float, ...]

    def rows(self) -> Iterator[dict[str, Any]]:
        for rank, (name, score) in enumerate(zip(self.classes, self.scores, strict=True), start=1):
            yield {"image": self.image.name, "rank": rank, "class": name, "probability": score}
