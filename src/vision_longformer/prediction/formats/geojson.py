"""GeoJSON: a feature with a polygon for each object, or for each class of pixels.

As QuPath has it: coordinates in pixels of full resolution, also where images were read at another scale; an
identifier, "objectType", "classification" with a name and a colour, and "measurements". Properties of their own,
"class", "score" and sizes, are what GIS programs show.

Of a georeferenced image, coordinates are those of its own coordinate system, which the member "crs" of GeoJSON 2008
names: GDAL, QGIS, rasterio and geopandas read it, edges of pixels stay straight, and the polygons cover exactly the
image's pixels. RFC 7946 knows WGS 84 alone, unless both sides agree on another system; where a system has no EPSG code
to be named by, coordinates are WGS 84.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from vision_longformer.prediction.formats.rows import shared_columns, sizes_of_row
from vision_longformer.prediction.results import Coordinates, ObjectsResult, RegionsResult

NAMESPACE = uuid.UUID("5b0a8a32-7f0e-4d6c-9a51-3f1f6f0d9d5e")  # of identifiers that are the same in every run
WGS84 = "EPSG:4326"
GROUP = 1000  # features that are in memory as text at once
MEASUREMENTS = {
    "area_px": "Area px^2", "perimeter_px": "Perimeter px", "area_um2": "Area µm^2", "perimeter_um": "Perimeter µm",
    "area_m2": "Area m^2", "perimeter_m": "Perimeter m",
}  # fmt: skip


def write_geojson(path: Path, result: RegionsResult) -> None:
    """Write a FeatureCollection.

    Raises:
        OSError: It cannot be written.
    """
    with path.open("w", encoding="utf-8") as file:
        file.writelines(pieces(result, coordinates="auto"))


def feature_collection(result: RegionsResult, *, coordinates: Coordinates) -> dict[str, Any]:
    """Return a FeatureCollection; see `RegionsResult.to_geojson`."""
    found: dict[str, Any] = json.loads("".join(pieces(result, coordinates=coordinates)))
    return found


def pieces(result: RegionsResult, *, coordinates: Coordinates) -> Iterator[str]:
    """Yield the text of a FeatureCollection.

    Raises:
        ValueError: Map coordinates of an image without georeference.
    """
    place = result.image.georeference
    if coordinates == "map" and not place:
        raise ValueError("coordinates=map: the image does not say where on earth it lies; take pixels")
    geometries = np.array(result.polygons(), dtype=object)
    named = None
    if place and coordinates != "pixels":
        geometries, named = on_map(geometries, place)
    elif result.image.downsample != (1.0, 1.0):
        across_and_down = np.array(result.image.downsample[::-1])
        geometries = shapely.transform(geometries, lambda points: points * across_and_down)
    yield '{"type": "FeatureCollection",'
    if named is not None:
        yield f'\n"crs": {json.dumps({"type": "name", "properties": {"name": named}})},'
    yield '\n"features": ['
    separator = "\n"
    for start in range(0, len(geometries), GROUP):
        texts = shapely.to_geojson(shapely.orient_polygons(geometries[start : start + GROUP]))
        for number, text in enumerate(texts, start=start):
            if not geometries[number].is_empty:
                yield f"{separator}{_feature(result, number, text)}"
                separator = ",\n"
    yield "\n]}\n"


def on_map(geometries: NDArray[Any], georeference: dict[str, Any]) -> tuple[NDArray[Any], str | None]:
    """Return geometries in pixels as geometries on the map, and the name of its coordinate system.

    Returns:
        Without a name they are in WGS 84, longitude first.
    """
    from rasterio.crs import CRS
    from rasterio.warp import transform

    a, b, c, d, e, f = georeference["transform"]
    crs = CRS.from_wkt(georeference["crs"])
    authority = crs.to_authority()

    def moved(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = points[:, 0], points[:, 1]
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    geometries = shapely.transform(geometries, moved)
    if authority is not None:
        code = ":".join(authority)
        return geometries, None if code == WGS84 else f"urn:ogc:def:crs:{authority[0]}::{authority[1]}"
    to_degrees = shapely.transform(
        geometries, lambda points: np.stack(transform(crs, WGS84, points[:, 0], points[:, 1]), axis=1)
    )
    return to_degrees, None


def _feature(result: RegionsResult, number: int, geometry: str) -> str:
    shared = shared_columns(result, number)
    sizes = sizes_of_row(result, number)
    measurements = {name: sizes[column] for column, name in MEASUREMENTS.items() if column in sizes}
    is_object = isinstance(result, ObjectsResult)
    if is_object:
        measurements = {"Score": shared["score"], **measurements}
    properties = {
        "objectType": "detection" if is_object else "annotation",
        "classification": {"name": shared["class"], "color": result.colour(shared["class_number"])},
        "measurements": measurements,
        **shared,
        **sizes,
    }
    about = f"{result.image.name}\n{number}\n{shared['class']}\n{geometry}"
    identifier = uuid.uuid5(NAMESPACE, about.encode("utf-8", "backslashreplace").decode())  # a name may be no text
    return (
        f'{{"type": "Feature", "id": "{identifier}", "geometry": {geometry}, '
        f'"properties": {json.dumps(properties, allow_nan=False)}}}'
    )
