"""Polygons on a map, in pixels of a georeferenced image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from vision_longformer.images import ImageInfo

WGS84 = "EPSG:4326"


def to_pixels(outlines: Sequence[Any], content: Any, info: ImageInfo) -> NDArray[np.object_]:
    """Return outlines in x and y of an image, whose first pixel reaches from 0 to 1.

    Args:
        outlines: Shapely's, as a GeoJSON file has them.
        content: Of the file; its member "crs" names the coordinate system. Without it coordinates are pixels, or
            degrees (WGS 84) if any of these lie on the image.
        info: Of the image.

    Raises:
        ValueError: The file names a coordinate system that is unknown, or the image is on no map.
    """
    geometries = np.array([*outlines, None], object)[:-1]  # of a list of polygons NumPy would take the parts
    named = _name(content)
    if not len(geometries) or (named is None and not info.georeference):
        return geometries
    if not info.georeference:
        raise ValueError(f"has map coordinates ({named}), and its image does not say where on earth it lies")
    from rasterio.crs import CRS
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    try:
        source = CRS.from_user_input(named or WGS84)
    except CRSError as error:
        raise ValueError(f"names the coordinate system {named}, which is unknown") from error
    target = CRS.from_wkt(info.georeference["crs"])
    a, b, c, d, e, f = info.georeference["transform"]
    back = np.linalg.inv([[a, b], [d, e]])

    def moved(points: NDArray[np.float64]) -> NDArray[np.float64]:
        if source != target:
            points = np.stack(transform(source, target, points[:, 0], points[:, 1]), axis=1)
        return np.asarray((points - (c, f)) @ back.T)

    if named is None and not _look_like_degrees(geometries):
        return geometries
    on_image: NDArray[np.object_] = shapely.transform(geometries, moved)
    if named is None and not shapely.intersects(shapely.box(0, 0, info.width, info.height), on_image).any():
        return geometries
    return on_image


def _look_like_degrees(geometries: NDArray[np.object_]) -> bool:
    left, top, right, bottom = shapely.total_bounds(geometries)
    return bool(left >= -180 and right <= 180 and top >= -90 and bottom <= 90)


def _name(content: Any) -> str | None:
    try:
        return str(content["crs"]["properties"]["name"])
    except (LookupError, TypeError):
        return None
