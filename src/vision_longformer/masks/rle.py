"""Instance masks: from the polygons and run lengths of annotations to pixels, and back to COCO's results.

Polygons are rasterised, and masks compared, by faster-coco-eval (the `detection` extra), whose pixels are those of
pycocotools bit for bit; it is given only what `read_coco` has checked. Run lengths need NumPy alone.

An `Rle` is what result files hold: {"size": [height, width], "counts": compressed text}.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from vision_longformer.masks import run_lengths
from vision_longformer.utils.flat import Segmentations

Mask = NDArray[np.bool_]


class Rle(TypedDict):
    """A mask as COCO's files hold it: read column by column, compressed."""

    size: list[int]
    counts: str


def segmentation_to_mask(segmentations: Segmentations, index: int, size: tuple[int, int]) -> Mask:
    """Return an object's mask (H, W), the union of its polygons.

    Args:
        segmentations: Of many objects.
        index: Which of them.
        size: (height, width) of its image.
    """
    return run_lengths.to_mask(_runs(segmentations, index, size, size), size)


def segmentations_to_masks(
    segmentations: Segmentations, indices: Sequence[int], size: tuple[int, int], *, resized: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return objects' masks at another size: (n, H', W'), 0 or 1.

    Polygons are scaled before they are rasterised; run lengths take the nearest pixel. Only one mask at a time exists
    in the image's own size.

    Args:
        segmentations: Of many objects.
        indices: Which n of them.
        size: (height, width) of their image.
        resized: (H', W').
    """
    masks = np.zeros((len(indices), *resized), np.uint8)
    rows, columns = nearest(size[0], resized[0]), nearest(size[1], resized[1])
    for place, index in enumerate(indices):
        if segmentations.is_runs[index]:
            mask = run_lengths.to_mask(segmentations.run_lengths(index), size)
            x1, y1, x2, y2 = mask_to_box(mask)  # most objects are small: only their part is resized
            top, bottom = np.searchsorted(rows, (y1, y2))
            left, right = np.searchsorted(columns, (x1, x2))
            masks[place, top:bottom, left:right] = mask[np.ix_(rows[top:bottom], columns[left:right])]
        else:
            masks[place] = run_lengths.to_mask(_runs(segmentations, index, size, resized), resized)
    return masks


def nearest(size: int, resized: int) -> NDArray[np.int64]:
    """Return, for each of `resized` pixels along an axis, the one of `size` pixels under its centre."""
    return np.minimum(((np.arange(resized) + 0.5) * (size / resized)).astype(np.int64), size - 1)


def segmentation_to_rle(segmentations: Segmentations, index: int, size: tuple[int, int]) -> Rle:
    """Return an object's mask in COCO's form."""
    return _rle(_runs(segmentations, index, size, size), size)


def mask_to_rle(mask: Mask) -> Rle:
    """Return a mask (H, W) in COCO's form."""
    return _rle(run_lengths.from_mask(mask), (mask.shape[0], mask.shape[1]))


def crop_to_rle(crop: Mask, *, corner: tuple[int, int], size: tuple[int, int]) -> Rle:
    """Return a mask of `size` (height, width) in COCO's form, given only the part of it that is not empty.

    Args:
        crop: (h, w), a mask the size of its box; what lies outside of the image is dropped.
        corner: (row, column) of its top left pixel.
        size: (height, width) of the image, of which no mask is made.
    """
    return _rle(run_lengths.from_crop(crop, corner=corner, size=size), size)


def soft_mask_to_rle(
    probabilities: NDArray[np.floating[Any]], box: Sequence[float], *, size: tuple[int, int], threshold: float = 0.5
) -> Rle:
    """Return where probabilities, stretched over a box, are at least `threshold`, in COCO's form.

    Between the centres of their cells they are interpolated bilinearly, with 0 around them, as Detectron2 does. Time
    and memory go with the box, not with the image.

    Args:
        probabilities: (m, m) of an object's pixels.
        box: x1, y1, x2, y2 in pixels; what reaches out of the image is dropped.
        size: (height, width) of the image.
        threshold: Above 0.
    """
    left, top = (min(max(0, int(np.floor(edge))), side) for edge, side in zip(box[:2], size[::-1], strict=True))
    right, bottom = (max(0, min(int(np.ceil(edge)), side)) for edge, side in zip(box[2:], size[::-1], strict=True))
    rows = _stretching(probabilities.shape[0], box[1], box[3], range(top, bottom))
    columns = _stretching(probabilities.shape[1], box[0], box[2], range(left, right))
    crop = rows @ probabilities.astype(np.float32) @ columns.T >= threshold  # (h, w)
    return crop_to_rle(crop, corner=(top, left), size=size)


def _stretching(cells: int, start: float, end: float, pixels: range) -> NDArray[np.float32]:
    """Return the (pixels, cells) weights of cells that fill `start` to `end` in the centres of pixels."""
    centres = (np.array(pixels, np.float64) + 0.5 - start) * (cells / max(end - start, 1e-9)) - 0.5
    return np.asarray(np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(cells))), np.float32)


def rle_to_mask(rle: Rle) -> Mask:
    """Return the mask (H, W) of COCO's form.

    Raises:
        ValueError: Its counts are no such code, or do not add up to its size.
    """
    size = (rle["size"][0], rle["size"][1])
    return run_lengths.to_mask(run_lengths.checked(run_lengths.decode(rle["counts"]), size=size), size)


def rle_to_crop(rle: Rle) -> tuple[Mask, tuple[int, int]]:
    """Return the smallest part of a mask that holds all of its pixels, and the (row, column) of that part's corner.

    Time and memory go with the columns that the mask covers, not with the image. An empty mask gives a (0, 0) part.

    Raises:
        ValueError: Its counts are no such code, or do not add up to its size.
    """
    height, width = rle["size"]
    runs = run_lengths.checked(run_lengths.decode(rle["counts"]), size=(height, width)).astype(np.int64)
    ends = np.cumsum(runs)
    starts, stops = ends[:-1:2], ends[1::2]
    if not len(stops):
        return np.zeros((0, 0), bool), (0, 0)
    left, right = int(starts[0]) // height, (int(stops[-1]) - 1) // height + 1
    changes = np.zeros((right - left) * height + 1, np.int8)
    changes[starts - left * height] = 1
    changes[stops - left * height] = -1  # never a start too: runs of length 0 are gone
    mask = np.cumsum(changes[:-1], dtype=np.int8).astype(bool).reshape(right - left, height).T
    rows = np.flatnonzero(mask.any(axis=1))
    return mask[rows[0] : rows[-1] + 1], (int(rows[0]), left)


def rle_area(rle: Rle) -> int:
    """Return the number of pixels of a mask in COCO's form.

    Raises:
        ValueError: Its counts are no such code, or do not add up to its size.
    """
    return run_lengths.area(
        run_lengths.checked(run_lengths.decode(rle["counts"]), size=(rle["size"][0], rle["size"][1]))
    )


def rle_iou(one: Sequence[Rle], other: Sequence[Rle]) -> NDArray[np.float64]:
    """Return the (n, m) intersections over unions of masks of the same size.

    Raises:
        ValueError: Sizes differ, or the counts of a mask are no such code or do not add up to its size.
    """
    if not one or not other:
        return np.zeros((len(one), len(other)))
    if len(sizes := {tuple(rle["size"]) for rle in (*one, *other)}) > 1:
        raise ValueError(f"masks of different sizes cannot be compared: {sorted(sizes)}")
    for rle in (*one, *other):
        rle_area(rle)  # compiled code takes what it is given
    ious = library().iou(_in_bytes(one), _in_bytes(other), [0] * len(other))
    return np.asarray(ious, np.float64).reshape(len(one), len(other))


def mask_to_box(mask: Mask) -> tuple[int, int, int, int]:
    """Return the smallest box x1, y1, x2, y2 around the pixels of a mask (H, W); four zeros if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def crop_to_box(mask: Mask, box: Sequence[float]) -> tuple[Mask, tuple[int, int]]:
    """Return the part of a mask (H, W) in the pixels that a box x1, y1, x2, y2 touches, and its (row, column)."""
    left, top = (max(0, int(np.floor(edge))) for edge in box[:2])
    right, bottom = (int(np.ceil(edge)) for edge in box[2:])
    return mask[top : max(top, bottom), left : max(left, right)], (top, left)


def library() -> Any:
    """Return faster-coco-eval's functions on masks.

    Raises:
        ImportError: It is not installed; says how to.
    """
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        raise ImportError(
            'masks and COCO evaluation need faster-coco-eval: pip install "vision-longformer[detection]"'
        ) from error
    return mask


def _runs(
    segmentations: Segmentations, index: int, size: tuple[int, int], resized: tuple[int, int]
) -> run_lengths.Runs:
    """Return the runs of an object's mask; polygons are scaled from `size` to `resized`."""
    if segmentations.is_runs[index]:
        return segmentations.run_lengths(index)
    scale = np.array([resized[1] / size[1], resized[0] / size[0]])
    return polygon_runs([polygon.reshape(-1, 2) * scale for polygon in segmentations.polygons(index)], resized)


def polygon_runs(polygons: Sequence[NDArray[np.float64]], size: tuple[int, int]) -> run_lengths.Runs:
    """Return the runs of the union of polygons, each (n, 2) x and y, in an image of (height, width) `size`."""
    parts = library().frPyObjects([polygon.ravel().tolist() for polygon in polygons], *size)
    whole = parts[0] if len(parts) == 1 else library().merge(parts)
    return run_lengths.checked(run_lengths.decode(whole["counts"]), size=size)


def _rle(runs: run_lengths.Runs, size: tuple[int, int]) -> Rle:
    return {"size": list(size), "counts": run_lengths.encode(runs).decode("ascii")}


def _in_bytes(rles: Sequence[Rle]) -> list[dict[str, Any]]:
    return [{"size": rle["size"], "counts": rle["counts"].encode()} for rle in rles]
