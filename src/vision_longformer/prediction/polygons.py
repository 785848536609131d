"""Masks as polygons whose edges run between pixels: a polygon covers exactly the squares of its mask's pixels.

Shapely makes no polygon of pixels, and its unions of squares and `build_area` take milliseconds an object: the outline
is traced here, over arrays, and the rest is Shapely's.

(h, w) mask; a vertex is the corner of a pixel, (x, y) from (0, 0) at the top left to (w, h)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray

from vision_longformer.masks.rle import Mask

Geometry: TypeAlias = "shapely.Polygon | shapely.MultiPolygon"
Ring = NDArray[np.int64]  # (vertices, 2) x and y, not closed
_STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])  # right, down, left, up: a pixel's edges, clockwise on a screen


def mask_to_polygon(mask: Mask, *, corner: tuple[int, int] = (0, 0), tolerance: float = 0.0) -> Geometry:
    """Return the outline of a mask: a polygon, or several where parts of it touch at corners or not at all.

    Args:
        mask: (h, w).
        corner: (row, column) of its first pixel in the image.
        tolerance: Pixels by which the outline may be moved to have fewer vertices (Douglas and Peucker); 0 keeps it.

    Returns:
        In x and y of the image, whose first pixel reaches from 0 to 1; empty if the mask is.
    """
    offset = np.array([corner[1], corner[0]])
    shells: list[Ring] = []
    holes: list[Ring] = []
    for ring in _rings(mask):
        (shells if _signed_area(ring) > 0 else holes).append(ring + offset)
    polygons = _with_holes(shells, holes)
    found: Geometry = polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)
    if tolerance > 0:
        found = shapely.simplify(found, tolerance, preserve_topology=True)
    return found


def box_to_polygon(box: NDArray[np.floating]) -> shapely.Polygon:
    """Return a box x1, y1, x2, y2 as a polygon."""
    polygon: shapely.Polygon = shapely.box(*(float(edge) for edge in box))
    return polygon


def _rings(mask: Mask) -> Iterator[Ring]:
    """Yield the closed outlines of a mask, none of which touches itself: clockwise on a screen around what it covers.

    Pixels that share a corner alone do not hang together.
    """
    starts, directions, following = _edges(mask)
    todo = np.ones(len(following), bool)
    for first in range(len(following)):
        if todo[first]:
            order = [first]
            while (edge := following[order[-1]]) != first:
                order.append(edge)
            todo[order] = False
            yield from _split(starts[order], directions[order])


def _edges(mask: Mask) -> tuple[Ring, NDArray[np.int64], list[int]]:
    """Return the (n, 2) starts, (n,) directions and successors of all edges between a mask's pixels and others."""
    padded = np.pad(np.asarray(mask, bool), 1)
    inner = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])  # above, right, below, left
    corners = ((0, 0), (1, 0), (1, 1), (0, 1))  # (x, y) where the edge on that side of a pixel starts
    starts, directions = [], []
    for direction, (neighbour, corner) in enumerate(zip(neighbours, corners, strict=True)):
        rows, columns = np.nonzero(inner & ~neighbour)
        starts.append(np.stack([columns + corner[0], rows + corner[1]], axis=1))
        directions.append(np.full(len(rows), direction))
    start, direction_of = np.concatenate(starts), np.concatenate(directions)
    width = mask.shape[1] + 1
    place = np.full((4, (mask.shape[0] + 1) * width), -1)
    place[direction_of, start[:, 1] * width + start[:, 0]] = np.arange(len(start))
    end = start + _STEPS[direction_of]
    at = end[:, 1] * width + end[:, 0]
    # Where two outlines cross, turning clockwise stays with the same pixel.
    clockwise, straight, back = (place[(direction_of + turn) % 4, at] for turn in (1, 0, 3))
    following = np.where(clockwise >= 0, clockwise, np.where(straight >= 0, straight, back))
    return start, direction_of, following.tolist()


def _split(starts: Ring, directions: NDArray[np.int64]) -> Iterator[Ring]:
    """Yield a closed way without the vertices at which it goes straight on, as ways that visit no vertex twice."""
    starts = starts[directions != np.roll(directions, 1)]
    seen: dict[tuple[int, int], int] = {}
    way: list[tuple[int, int]] = []
    for x, y in starts.tolist():
        if (x, y) in seen:
            since = seen[x, y]
            yield np.array(way[since:])
            for vertex in way[since + 1 :]:
                del seen[vertex]
            del way[since + 1 :]
        else:
            seen[x, y] = len(way)
            way.append((x, y))
    yield np.array(way)


def _signed_area(ring: Ring) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def _with_holes(shells: list[Ring], holes: list[Ring]) -> list[shapely.Polygon]:
    """Return a polygon for each outer ring; a hole is in the smallest one that holds it."""
    if len(shells) == 1:
        return [shapely.Polygon(shells[0], holes)]
    filled = np.array([shapely.Polygon(shell) for shell in shells])
    own: list[list[Ring]] = [[] for _ in shells]
    by_size = np.argsort(shapely.area(filled)) if len(filled) else np.zeros(0, int)
    tree = shapely.STRtree(filled[by_size])
    for hole in holes:
        around = tree.query(shapely.Polygon(hole), predicate="within")
        own[by_size[around.min()]].append(hole)
    return [shapely.Polygon(shell, inner) for shell, inner in zip(shells, own, strict=True)]
