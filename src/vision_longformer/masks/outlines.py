"""Run lengths of Shapely's polygons, holes and several parts included: of the pixels whose centres they cover.

That is how rasterio and GDAL take a polygon, and `prediction.polygons` the other way round. Nothing the size of the
image is made: where each column's centre crosses the outline is where its runs begin and end.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray

from vision_longformer.masks.run_lengths import Runs

Geometry: TypeAlias = "shapely.Polygon | shapely.MultiPolygon"
_MOST = 2**32 - 1  # of one run


def outline_to_runs(outline: Geometry, size: tuple[int, int]) -> Runs:
    """Return the runs of an outline in an image of (height, width) `size`; see `run_lengths`.

    Args:
        outline: In x and y of the image, whose first pixel reaches from 0 to 1. What reaches out of it is cut off.
        size: Of the image. Runs of more than 2³² pixels are cut by empty ones.
    """
    height, width = size
    columns, crossings = _crossings(shapely.get_parts(outline), width)
    order = np.lexsort((crossings, columns))
    rows = np.ceil(crossings[order] - 0.5).clip(0, height).astype(np.int64)  # the first pixel whose centre lies below
    pairs = (columns[order] * height + rows).reshape(-1, 2)
    edges = pairs[pairs[:, 1] > pairs[:, 0]].ravel()
    joined = np.flatnonzero(edges[1::2][:-1] == edges[2::2]) * 2 + 1  # one column's run goes on in the next
    edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    runs = np.diff(np.concatenate([[0], edges, [height * width]]))
    if runs.size > 1 and runs[-1] == 0:
        runs = runs[:-1]
    while (long := np.flatnonzero(runs > _MOST)).size:
        place = int(long[0])
        runs = np.concatenate([runs[:place], [_MOST, 0, runs[place] - _MOST], runs[place + 1 :]])
    return runs.astype(np.uint32)


def runs_to_box(runs: Runs, height: int) -> tuple[int, int, int, int]:
    """Return the smallest box x1, y1, x2, y2 around the pixels of a mask; four zeros if it is empty.

    Args:
        runs: Of the mask.
        height: Of the mask.
    """
    places = np.cumsum(runs, dtype=np.int64)
    starts, ends = places[: places.size // 2 * 2 : 2], places[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not starts.size:
        return 0, 0, 0, 0
    one_column = starts // height == (ends - 1) // height  # else the run goes over the lower edge into the next
    top = int(np.where(one_column, starts % height, 0).min())
    bottom = int(np.where(one_column, (ends - 1) % height, height - 1).max()) + 1
    return int(starts[0]) // height, top, int(ends[-1] - 1) // height + 1, bottom


def _crossings(polygons: NDArray[np.object_], width: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return where the centres of columns cross edges: their numbers, and the y of each crossing."""
    rings = shapely.get_rings(polygons)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    same = np.flatnonzero(ring[1:] == ring[:-1])
    one, other = points[same], points[same + 1]
    swap = one[:, 0] > other[:, 0]
    one[swap], other[swap] = other[swap].copy(), one[swap].copy()
    # an edge is crossed by centres from its left end up to, but not including, its right one
    first, end = (np.ceil(ends[:, 0] - 0.5).clip(0, width).astype(np.int64) for ends in (one, other))
    counts = end - first
    own = np.repeat(np.arange(len(counts)), counts)
    columns = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[own]
    along = (columns + 0.5 - one[own, 0]) / (other[own, 0] - one[own, 0])
    return columns, one[own, 1] + (other[own, 1] - one[own, 1]) * along
