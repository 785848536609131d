"""The rows of tables: one for each object, class of pixels, or image.

Columns in pixels are always there, and are of full resolution, also where images were read at another scale; those in
micrometres or metres are there where the image says how large a pixel is. x goes right and y down, from the top left
corner of the image; map coordinates are those of the image's coordinate system.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vision_longformer.prediction.measures import ImageFacts, PixelUnit, square_side
from vision_longformer.prediction.results import ObjectsResult, RegionsResult, SemanticResult


def object_rows(result: ObjectsResult) -> Iterator[dict[str, Any]]:
    """Yield a row for each object, best first: its number is its value in the label image."""
    place = result.image.georeference.get("transform")
    unit, (down, across) = result.image.unit, result.image.downsample
    for number in range(len(result)):
        x1, y1, x2, y2 = (float(edge) for edge in result.boxes[number])
        x, y = result.measures.centroids[number].tolist()
        row = {"image": result.image.name, **shared_columns(result, number)}
        row |= {"x1": x1 * across, "y1": y1 * down, "x2": x2 * across, "y2": y2 * down}
        row |= {"centroid_x": x * across, "centroid_y": y * down}
        row |= sizes_of_row(result, number)
        if unit is not None:
            row |= {f"width_{unit.name}": (x2 - x1) * unit.width, f"height_{unit.name}": (y2 - y1) * unit.height}
        if unit is not None and not place:
            row |= {f"centroid_x_{unit.name}": x * unit.width, f"centroid_y_{unit.name}": y * unit.height}
        if place:
            a, b, c, d, e, f = place
            row |= {"map_x": a * x + b * y + c, "map_y": d * x + e * y + f}
        yield {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def class_rows(image: ImageFacts, class_names: Sequence[str], pixels: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield a row for each class of pixels: how many there are, their share of those that the image has, their area."""
    total = sum(pixels)
    for number, (name, count) in enumerate(zip(class_names, pixels, strict=True)):
        row: dict[str, Any] = {"image": image.name, "class_number": number, "class": name}
        row["area_px"] = _at_full_resolution(image, count)
        row |= {"share": count / total if total else None, **_areas(image.unit, count)}
        yield row


def shared_columns(result: RegionsResult, number: int) -> dict[str, Any]:
    """Return what names an object or a class of pixels."""
    if isinstance(result, ObjectsResult):
        label = int(result.class_numbers[number])
        about = {"id": number + 1, "class_number": label, "class": result.class_names[label]}
        return about | {"score": float(result.scores[number])}
    return {"class_number": number, "class": result.class_names[number]}


def sizes_of_row(result: RegionsResult, number: int) -> dict[str, Any]:
    """Return the area and perimeter of an object, or the area of a class, in all units that are known."""
    unit = result.image.unit
    if isinstance(result, ObjectsResult):
        area, length = float(result.measures.areas[number]), float(result.measures.perimeters[number])
        sizes = {"area_px": _at_full_resolution(result.image, area), **_areas(unit, area)}
        if (side := square_side(*result.image.downsample)) is not None:
            sizes["perimeter_px"] = length * side
        if unit is not None and unit.length is not None:
            sizes[f"perimeter_{unit.name}"] = length * unit.length
        return sizes
    assert isinstance(result, SemanticResult)
    count = int(result.pixels[number])
    return {"area_px": _at_full_resolution(result.image, count), **_areas(unit, count)}


def count_objects(result: ObjectsResult) -> list[int]:
    """Return how many objects of each class there are."""
    counts: list[int] = np.bincount(result.class_numbers, minlength=len(result.class_names)).tolist()
    return counts


def _at_full_resolution(image: ImageFacts, pixels: float) -> float:
    return pixels if image.downsample == (1.0, 1.0) else pixels * math.prod(image.downsample)


def _areas(unit: PixelUnit | None, pixels: float) -> dict[str, float]:
    return {} if unit is None else {f"area_{unit.name}2": pixels * unit.area}
