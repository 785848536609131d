"""Objects from GeoJSON: polygons as QuPath exports them, as `vil predict` writes them, or as GIS programs do.

Beside each image, or in a folder of labels, lies NAME.geojson (or NAME.tif.geojson). It holds a FeatureCollection, a
list of features or one feature. A feature's class is QuPath's `classification`, else the property `class`; all without
one are of the class that the options name. A pixel belongs to a polygon that covers its centre; holes are heeded.

Coordinates are pixels of full resolution, whatever level or scale the image is read at. Where the file names a
coordinate system ("crs", of GeoJSON 2008), they are those of the map; so are degrees, if they lie on a georeferenced
image.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.label_files import folder_of_images
from vision_longformer.datasets.map_coordinates import to_pixels
from vision_longformer.datasets.object_runs import ImageObjects, split_of
from vision_longformer.datasets.problems import Problems, printable, some
from vision_longformer.images import AS_STORED, ImageError, ImageInfo, Reading, describe_image
from vision_longformer.images.find import images_below
from vision_longformer.masks.outlines import outline_to_runs, runs_to_box
from vision_longformer.masks.run_lengths import Runs, area
from vision_longformer.utils.steps import Steps, in_threads
from vision_longformer.utils.words import counted

SUFFIX = ".geojson"
FOLDERS = ("labels", "geojson", "annotations")
IGNORED = "*"  # ends the names of QuPath's classes that stand for nothing


class Feature(NamedTuple):
    """A polygon and the name of its class; "" if it has none."""

    outline: Any
    name: str


def geojson_files(data: Path, split: str) -> tuple[list[tuple[Path, Path]], tuple[str, ...]]:
    """Return the images of a split with their GeoJSON files, in the order of their names, and what has none.

    That is a sentence for the images without a file, and one for the files without an image.
    """
    images = folder_of_images(data, split)
    places = [images, *(place for name in FOLDERS for place in (data / split / name, data / f"{split}_{name}"))]
    found, alone = [], list[str]()
    for image in images_below(images).images:
        below = image.relative_to(images)
        names = [place / below.parent / f"{stem}{SUFFIX}" for place in places for stem in (image.name, image.stem)]
        file = next((name for name in names if name.is_file()), None)
        if file is not None:
            found.append((image, file))
        else:
            alone.append(str(below))
    used = {file for _, file in found}
    files = {file for place in places if place.is_dir() for file in place.rglob(f"*{SUFFIX}") if file.is_file()}
    unused = sorted(str(file.relative_to(data)) for file in files - used)
    remarks = [f"{images}: {counted(len(alone), 'image')} without a GeoJSON file: {some(alone)}"] if alone else []
    remarks += [f"{data}: {counted(len(unused), 'GeoJSON file')} without an image: {some(unused)}"] if unused else []
    return found, tuple(remarks)


def reading_geojson(
    data: Path,
    split: str,
    *,
    classes: Sequence[str] | None,
    class_name: str,
    background: str | None,
    with_masks: bool,
    skip_invalid: bool,
    reading: Reading = AS_STORED,
) -> Steps[CocoSplit]:
    """Read the objects of a split.

    Args:
        data: A folder.
        split: "train", "val" or any other there is.
        classes: Names of the classes that a model knows; by default those found, sorted.
        class_name: Of features that have none.
        background: Features of this class are no objects; None if all are.
        with_masks: Keep their masks too.
        skip_invalid: Leave out features that cannot be used, and images whose file cannot be read.
        reading: How the images are to be read.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: Something cannot be used and `skip_invalid` is false, or there is no object at all.
    """
    pairs, remarks = geojson_files(data, split)
    problems = Problems(data / split)

    def look(pair: tuple[Path, Path]) -> tuple[ImageInfo, list[Feature], list[str]] | str:
        image, file = pair
        try:
            info = describe_image(image, reading=reading)
            return info, *_features(file, info)
        except (ImageError, ValueError) as error:
            return str(error)

    results = yield from in_threads("labels read", pairs, look)
    read: list[tuple[Path, Path, ImageInfo, list[Feature]]] = []
    for (image, file), result in zip(pairs, results, strict=True):
        if isinstance(result, str):
            problems.add("image without labels that can be read", result)
            continue
        info, features, wrong = result
        for sentence in wrong:
            problems.add("feature that is no area", sentence)
        named = [feature._replace(name=feature.name or class_name) for feature in features]
        kept = [feature for feature in named if feature.name != background and not feature.name.endswith(IGNORED)]
        read.append((image, file, info, kept))
    known = classes or sorted({feature.name for *_, features in read for feature in features})
    images = [
        _objects(features, known, problems, file=file, size=info.size, name=str(image.relative_to(data)))
        for image, file, info, features in read
    ]
    if not skip_invalid:
        problems.raise_any()
    if not images or not known:
        what = "image with a GeoJSON file" if not images else "object in its GeoJSON files"
        raise ValueError(f"{data / split}: has no {what}; expected {split}/NAME.tif and {split}/NAME.geojson")
    return split_of(
        images,
        file=data / split,
        folder=data,
        classes=known,
        with_masks=with_masks,
        skipped=problems.skipped(),
        remarks=remarks,
        reading=reading,
    )


def _features(file: Path, info: ImageInfo) -> tuple[list[Feature], list[str]]:
    """Return a file's polygons in pixels of its image, and a sentence for each feature that is none.

    Raises:
        ValueError: It is no GeoJSON, or its coordinates cannot be found in the image.
    """
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: is not JSON ({error})") from error
    entries: Any = content
    if isinstance(content, dict):
        entries = content.get("features", []) if content.get("type") == "FeatureCollection" else [content]
    if not isinstance(entries, list):
        raise ValueError(f"{file}: is no GeoJSON: expected a FeatureCollection, a list of features or one feature")
    features, wrong = list[Feature](), list[str]()
    for number, entry in enumerate(entries, start=1):
        try:
            features.append(Feature(_outline(entry["geometry"]), _class_name(entry.get("properties") or {})))
        except (LookupError, TypeError, AttributeError, ValueError, shapely.errors.ShapelyError) as error:
            reason = str(error) if isinstance(error, ValueError) else "is damaged"
            wrong.append(f"{file}: feature {number} {reason}")
    try:
        outlines = to_pixels([feature.outline for feature in features], content, info)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return [Feature(outline, feature.name) for outline, feature in zip(outlines, features, strict=True)], wrong


def _outline(geometry: Any) -> Any:
    """Return the area of a feature, mended where its outline crosses itself.

    Raises:
        ValueError: It is no polygon.
    """
    if geometry["type"] not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"is a {printable(geometry['type'])}, and no polygon")
    outline = shapely.geometry.shape(geometry)
    if not shapely.is_valid(outline):
        outline = shapely.make_valid(outline)
    parts = [part for part in shapely.get_parts(shapely.get_parts(outline)) if part.geom_type == "Polygon"]
    if not np.isfinite(shapely.get_coordinates(parts)).all():
        raise ValueError("has a coordinate that is no number")
    return shapely.MultiPolygon(parts)


def _class_name(properties: Any) -> str:
    classification = properties.get("classification")
    if isinstance(classification, dict):
        names = classification.get("names")
        name = classification.get("name") or (": ".join(names) if names else "")
    else:
        name = classification or properties.get("class") or ""
    return str(name).strip()


def _objects(
    features: Sequence[Feature],
    classes: Sequence[str],
    problems: Problems,
    *,
    file: Path,
    size: tuple[int, int],
    name: str,
) -> ImageObjects:
    """Return an image's objects, as pixels."""
    runs, labels, boxes = list[Runs](), list[int](), list[tuple[int, int, int, int]]()
    number = {known: label for label, known in enumerate(classes)}
    for place, feature in enumerate(features, start=1):
        if feature.name not in number:
            known = some(list(classes))
            problems.add("unknown class", f"{file}: object {place} is {printable(feature.name)}, none of {known}")
            continue
        own = outline_to_runs(feature.outline, size)
        if not area(own):
            problems.add(
                "object outside of its image",
                f"{file}: object {place} covers the centre of no pixel of the image, {size[1]}×{size[0]}",
            )
            continue
        runs.append(own)
        labels.append(number[feature.name])
        boxes.append(runs_to_box(own, size[0]))
    found: NDArray[np.int64] = np.array(boxes, np.int64).reshape(-1, 4)
    areas = np.array([area(own) for own in runs], np.int64)
    return ImageObjects(name, size, True, found, areas, np.array(labels, np.int64), runs)
