"""COCO annotation files: read, checked, and held in a few arrays.

**Orientation.** A photograph may be stored sideways, with EXIF's note how to turn it; the annotation file does not
say whether its boxes were drawn on the stored pixels, as COCO's own tools take them, or on the upright ones, as
browsers show them. The file's width and height tell: where they are those of the stored pixels, boxes refer to these,
and the image is read without turning it; where they are only those of the image turned by a quarter, boxes refer to
the upright image, and it is read upright. A square image, or one stored upside down or mirrored, is taken as stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision_longformer.datasets.coco_lists import read_annotations, read_categories, read_images, read_lists
from vision_longformer.datasets.problems import Problems
from vision_longformer.images import AS_STORED, MAX_PIXELS, ImageError, Raster, Reading
from vision_longformer.images.rasters import read_raster_and_valid, size_of
from vision_longformer.images.reader import Mask
from vision_longformer.utils.flat import Segmentations, Texts


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
        remarks: What of a folder was not taken, a sentence each.
        reading: How the images are read. Of a pyramid, annotations have the pixels of the level that is read.
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
    remarks: tuple[str, ...] = ()
    reading: Reading = AS_STORED

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

    def read(self, image: int, *, max_pixels: int = MAX_PIXELS) -> Raster:
        """Return an image, turned as its annotations take it.

        Raises:
            ImageError: It cannot be read, or its size is no longer what it was.
        """
        return self.read_and_valid(image, max_pixels=max_pixels)[0]

    def read_and_valid(self, image: int, *, max_pixels: int = MAX_PIXELS) -> tuple[Raster, Mask | None]:
        """Return an image, and which of its (H, W) pixels are valid; None where all are. See `read`."""
        path, upright = self.path(image), bool(self.upright[image])
        raster, valid = read_raster_and_valid(path, reading=self.reading, max_pixels=max_pixels, upright=upright)
        (height, width), (own_height, own_width) = self.size(image), size_of(raster)
        if (own_height, own_width) != (height, width):
            raise ImageError(f"{path}: has {own_width}×{own_height} pixels, not {width}×{height}")
        return raster, valid


def read_coco(
    annotations: str | Path,
    images_folder: str | Path,
    *,
    with_masks: bool,
    skip_invalid: bool = False,
    classes: Sequence[str] | None = None,
    reading: Reading = AS_STORED,
) -> CocoSplit:
    """Read an annotation file and check all of it, and the headers of its images.

    Args:
        annotations: A COCO JSON file.
        images_folder: What the images' `file_name` is relative to.
        with_masks: Read and check segmentations too.
        skip_invalid: Leave out categories, images and annotations that cannot be used, and what belongs to them;
            `CocoSplit.skipped` counts them. Of entries with the same id, the first stays.
        classes: Names of the classes that a model knows, in its order; by default those of the file.
        reading: How the images are to be read.

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
    content = read_lists(file)
    problems = Problems(file)
    categories = read_categories(content["categories"], problems, classes)
    images = read_images(content["images"], problems, folder, reading)
    store = read_annotations(content["annotations"], problems, categories, images, with_masks=with_masks)
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
        reading=reading,
    )


def _reasons(problems: Problems) -> str:
    return "".join(f"; {reason}: {count}" for reason, count in problems.counts.most_common())
