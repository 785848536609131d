"""GeoPackage: the features of GeoJSON as a layer that GIS programs edit."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from vision_longformer.prediction.formats.rows import shared_columns, sizes_of_row
from vision_longformer.prediction.results import RegionsResult


def write_gpkg(path: Path, result: RegionsResult) -> None:
    """Write a layer "objects" or "classes" of multipolygons.

    They are in the coordinate system of a georeferenced image, else in its pixels; y goes down then, and the layer has
    no coordinate system.

    Raises:
        ImportError: pyogrio is not installed.
        OSError: It cannot be written.
    """
    import pyogrio.errors
    import pyogrio.raw

    geometries = np.array(result.polygons(), dtype=object)
    place = result.image.georeference
    if place:
        a, b, c, d, e, f = place["transform"]
        geometries = shapely.transform(geometries, lambda xy: xy @ np.array([[a, d], [b, e]]) + np.array([c, f]))
    elif result.image.downsample != (1.0, 1.0):
        geometries = shapely.transform(geometries, lambda xy: xy * np.array(result.image.downsample[::-1]))
    rows = [shared_columns(result, number) | sizes_of_row(result, number) for number in range(len(geometries))]
    names = list(rows[0]) if rows else []
    kept = [number for number, geometry in enumerate(geometries) if not geometry.is_empty]
    fields = [_column([rows[number][name] for number in kept]) for name in names]
    multi = [_multi(geometries[number]) for number in kept]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")  # of pixels
            pyogrio.raw.write(
                str(path),
                geometry=np.array(shapely.to_wkb(multi), dtype=object),
                field_data=fields,
                fields=np.array(["number" if name == "id" else name for name in names], dtype=object),
                layer="objects" if result.kind == "objects" else "classes",
                driver="GPKG",
                geometry_type="MultiPolygon",
                crs=place["crs"] if place else None,
            )
    except (pyogrio.errors.DataSourceError, RuntimeError) as error:
        raise OSError(str(error)) from error


def _column(values: list[Any]) -> Any:
    return np.array(values, dtype=object if values and isinstance(values[0], str) else None)


def _multi(geometry: Any) -> shapely.MultiPolygon:
    return geometry if isinstance(geometry, shapely.MultiPolygon) else shapely.MultiPolygon([geometry])
