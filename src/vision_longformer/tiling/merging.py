"""What was found in overlapping tiles, as if it had been found in the whole image.

n parts; boxes x1 y1 x2 y2 in pixels of the image

A part is what one tile shows of an object. It is cut if its box reaches a border of its tile that is not one of the
image. Four rules make objects of parts:

1. A cut part that lies within an uncut one of the same class, from another tile, is dropped.
2. Two parts of a class that are cut at borders inside each other's tiles are joined if they agree on what both tiles
   show: of the smaller one's share of it, the larger one's covers at least half. Each part is joined to the best of a
   tile only, and only if that holds both ways.
3. What is still cut then, and lies within an object of the same class that goes on beyond the border, is dropped too.
4. The rest is compared by torchvision's non-maximum suppression, as in a single image: an object that several tiles
   show whole is one.

Masks, where there are any, say how far two parts agree; else boxes do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from vision_longformer.masks.box_masks import BoxMask, unite
from vision_longformer.tiling.tiles import Tile

Boxes = NDArray[np.float64]

AGREEMENT = 0.5  # of two parts on what both tiles show
CONTAINED = 0.7  # share of a part's box within the object that it is taken for a part of
# A detector's boxes end near a border, not at it: within so many pixels, or so much of the box's own side.
BORDER_PIXELS, BORDER_SHARE = 2.0, 0.05
# An object explains a part only if it is about as certain: else one bad box would take good ones away.
LEAST_CERTAINTY = 0.5


@dataclass(frozen=True, eq=False)
class Parts:
    """What was found in the tiles of an image.

    Attributes:
        boxes: (n, 4) in pixels of the image, within their tiles.
        scores: (n,)
        labels: (n,)
        tiles: (n,) number of each one's tile.
        masks: Of each; None without masks.
    """

    boxes: Boxes
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    tiles: NDArray[np.int64]
    masks: list[BoxMask] | None


@dataclass(frozen=True, eq=False)
class Objects:
    """What was found in the image, best first: as `Parts`, without tiles."""

    boxes: Boxes
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    masks: list[BoxMask] | None


def merge(parts: Parts, tiles: Sequence[Tile], *, size: tuple[int, int], nms_threshold: float) -> Objects:
    """Make objects of parts.

    Args:
        parts: Of all tiles.
        tiles: Of the image.
        size: (height, width) of the image.
        nms_threshold: Overlap (intersection over union) of two objects of a class, above which the worse one is
            dropped.
    """
    borders = np.array([tile.box for tile in tiles], np.float64)
    cut = _cut_edges(parts, borders, size)
    alone = [[number] for number in range(len(cut))]
    unexplained = _unexplained(
        _unite(parts, alone), _edges(parts, alone, borders, cut), by=np.asarray(~cut.any(axis=1))
    )
    parts, cut = _select_parts(parts, np.flatnonzero(unexplained)), cut[unexplained]
    groups = _join(parts, borders, cut)
    objects = _unite(parts, groups)
    unexplained = _unexplained(objects, _edges(parts, groups, borders, cut), by=np.ones(len(groups), bool))
    objects = _select(objects, np.flatnonzero(unexplained))
    kept = batched_nms(
        torch.from_numpy(objects.boxes),
        torch.from_numpy(objects.scores),
        torch.from_numpy(objects.labels),
        nms_threshold,
    )
    return _select(objects, kept.numpy())


def _edges(
    parts: Parts, groups: Sequence[Sequence[int]], borders: Boxes, cut: NDArray[np.bool_]
) -> list[list[tuple[int, float]]]:
    """Return where the parts of each group are cut: the number of an edge of a box, and where the border is."""
    return [
        [(int(edge), float(borders[parts.tiles[part], edge])) for part in group for edge in np.flatnonzero(cut[part])]
        for group in groups
    ]


def _cut_edges(parts: Parts, borders: Boxes, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return (n, 4): whether each edge of a box reaches a border of its tile that lies inside of the image."""
    border = borders[parts.tiles]  # (n, 4)
    inner = border != np.array([0, 0, size[1], size[0]])
    sides = np.tile(parts.boxes[:, 2:] - parts.boxes[:, :2], 2)
    return np.asarray(inner & (np.abs(parts.boxes - border) <= np.maximum(BORDER_PIXELS, BORDER_SHARE * sides)))


# --- joining what a seam cuts -----------------------------------------------------------------------------------


def _join(parts: Parts, borders: Boxes, cut: NDArray[np.bool_]) -> list[list[int]]:
    """Return the parts of each object."""
    group = list(range(len(parts.boxes)))

    def root(part: int) -> int:
        while group[part] != part:
            part = group[part]
        return part

    is_cut = cut.any(axis=1)
    members = [np.flatnonzero((parts.tiles == number) & is_cut) for number in range(len(borders))]
    for one in range(len(borders)):
        shared = _intersection(borders[one + 1 :], borders[one])
        for place in np.flatnonzero((shared[:, 2:] > shared[:, :2]).all(axis=1)).tolist():
            other = one + 1 + place
            ours = members[one][(cut[members[one]] & _inside(borders[one], borders[other])).any(axis=1)]
            theirs = members[other][(cut[members[other]] & _inside(borders[other], borders[one])).any(axis=1)]
            if len(ours) and len(theirs):
                for a, b in _partners(parts, ours, theirs, shared[place]):
                    group[root(a)] = root(b)
    joined: dict[int, list[int]] = {}
    for part in range(len(group)):
        joined.setdefault(root(part), []).append(part)
    return list(joined.values())


def _inside(tile: Boxes, other: Boxes) -> NDArray[np.bool_]:
    """Return (4,): which borders of a tile run through another tile."""
    low, high = np.tile(other[:2], 2), np.tile(other[2:], 2)
    return np.asarray((low < tile) & (tile < high))


def _partners(parts: Parts, ours: NDArray[np.int64], theirs: NDArray[np.int64], shared: Boxes) -> list[tuple[int, int]]:
    """Return pairs of parts of two tiles that agree on what both tiles show, each the other's best."""
    agreement = _agreement(parts, ours, theirs, shared)
    for_ours, for_theirs = agreement * parts.scores[theirs], agreement * parts.scores[ours][:, None]
    best_of_ours, best_of_theirs = for_ours.argmax(axis=1), for_theirs.argmax(axis=0)
    return [
        (int(ours[row]), int(theirs[column]))
        for row, column in enumerate(best_of_ours)
        if agreement[row, column] > 0 and best_of_theirs[column] == row
    ]


def _agreement(parts: Parts, ours: NDArray[np.int64], theirs: NDArray[np.int64], shared: Boxes) -> Boxes:
    """Return the (ours, theirs) intersections over unions of what parts cover of `shared`; 0 if they do not agree."""
    our_boxes, their_boxes = (_intersection(parts.boxes[some], shared) for some in (ours, theirs))
    both = _area(_intersection(our_boxes[:, None], their_boxes))
    both *= parts.labels[ours][:, None] == parts.labels[theirs]
    our_areas, their_areas = _area(our_boxes)[:, None] + 0 * both, _area(their_boxes) + 0 * both
    if parts.masks is not None:
        x1, y1, x2, y2 = (int(edge) for edge in shared)
        for row, column in zip(*np.nonzero(both), strict=True):
            one, other = (parts.masks[part].within((x1, y1, x2, y2)) for part in (ours[row], theirs[column]))
            our_areas[row, column], their_areas[row, column] = one.sum(), other.sum()
            both[row, column] = (one & other).sum()
    agreeing = (both > 0) & (both >= AGREEMENT * np.minimum(our_areas, their_areas))
    return np.where(agreeing, both / np.maximum(our_areas + their_areas - both, 1e-9), 0)


def _unite(parts: Parts, groups: Sequence[Sequence[int]]) -> Objects:
    """Return objects with the box and the mask around all of their parts, and the score of the best one."""
    boxes = [np.concatenate([parts.boxes[g, :2].min(axis=0), parts.boxes[g, 2:].max(axis=0)]) for g in groups]
    masks = None
    if parts.masks is not None:
        own = parts.masks
        masks = [unite([own[part] for part in group]) if len(group) > 1 else own[group[0]] for group in groups]
    return Objects(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array([parts.scores[group].max() for group in groups], np.float64),
        np.array([parts.labels[group[0]] for group in groups], np.int64),
        masks,
    )


# --- dropping what is part of something larger ------------------------------------------------------------------


def _unexplained(
    objects: Objects, edges: Sequence[Sequence[tuple[int, float]]], *, by: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return (n,): false for what is cut, and part of another object that goes on beyond the border.

    Args:
        objects: n of them.
        edges: Where each is cut, see `_edges`.
        by: (n,) which of them others may be part of.
    """
    boxes, areas = objects.boxes, _area(objects.boxes)
    kept = np.ones(len(boxes), bool)
    for number in np.argsort(areas, kind="stable").tolist():  # the smallest first: parts of parts go too
        if not edges[number]:
            continue
        beyond = np.zeros(len(boxes), bool)
        for edge, border in edges[number]:
            goes_on = boxes[:, edge] < border if edge < 2 else boxes[:, edge] > border
            if not goes_on[number]:  # else another part of it went on there
                beyond |= goes_on
        beyond &= kept & by & (objects.labels == objects.labels[number])
        beyond &= objects.scores >= LEAST_CERTAINTY * objects.scores[number]
        beyond &= areas > areas[number]
        larger = np.flatnonzero(beyond)
        larger = larger[_area(_intersection(boxes[larger], boxes[number])) >= CONTAINED * areas[number]]
        kept[number] = not any(_covers(objects, other, number) for other in larger.tolist())
    return kept


def _covers(objects: Objects, larger: int, smaller: int) -> bool:
    """Return whether the mask of one object holds most of another's; true without masks."""
    if objects.masks is None:
        return True
    mask = objects.masks[smaller].within(objects.masks[smaller].pixels)
    both = mask & objects.masks[larger].within(objects.masks[smaller].pixels)
    return bool(both.sum() >= AGREEMENT * mask.sum())


def _select_parts(parts: Parts, numbers: NDArray[np.int64]) -> Parts:
    masks = None if parts.masks is None else [parts.masks[number] for number in numbers]
    return Parts(parts.boxes[numbers], parts.scores[numbers], parts.labels[numbers], parts.tiles[numbers], masks)


def _select(objects: Objects, numbers: NDArray[np.int64]) -> Objects:
    masks = None if objects.masks is None else [objects.masks[number] for number in numbers]
    return Objects(objects.boxes[numbers], objects.scores[numbers], objects.labels[numbers], masks)


def _intersection(boxes: Boxes, other: Boxes) -> Boxes:
    """Return boxes (..., 4) cut off at another; where they do not meet, the result has no area."""
    low, high = np.maximum(boxes[..., :2], other[..., :2]), np.minimum(boxes[..., 2:], other[..., 2:])
    return np.concatenate([low, np.maximum(low, high)], axis=-1)


def _area(boxes: Boxes) -> NDArray[np.float64]:
    return np.asarray((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))
