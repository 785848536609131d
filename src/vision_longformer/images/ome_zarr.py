"""The axes of OME-Zarr images, of which rows, columns and channels are read.

H×W image, n rows, C channels
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vision_longformer.images.decode import ImageError
from vision_longformer.images.reader import Array

FIRST_AXES = "tczyx"  # of the versions before 0.3, whose metadata does not name them


class OmeImage:
    """Slices an array with named axes by rows, as (n, W) or (n, W, C).

    Args:
        array: Of a Zarr group.
        axes: Their names, in the order of the array's shape.

    Raises:
        ImageError: There are no rows or columns, or other axes than rows, columns and channels hold more than one.
    """

    def __init__(self, array: Any, axes: Sequence[str]) -> None:
        sizes = dict(zip(axes, array.shape, strict=False))
        others = [size for axis, size in sizes.items() if axis not in ("y", "x", "c")]
        if len(sizes) != len(array.shape) or not {"y", "x"} <= sizes.keys() or any(size != 1 for size in others):
            found = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
            raise ImageError(f"it is no single picture of rows, columns and channels (its axes: {found})")
        self._array, self._axes = array, tuple(axes)
        self._kept = [axis for axis in axes if axis in ("y", "x", "c")]
        self._order = [self._kept.index(axis) for axis in ("y", "x", "c") if axis in sizes]
        self.shape = tuple(sizes[axis] for axis in ("y", "x", "c") if axis in sizes)
        self.dtype = array.dtype
        self.chunks = tuple(array.chunks[self._axes.index(axis)] for axis in ("y", "x", "c") if axis in sizes)

    def __getitem__(self, rows: slice) -> Array:
        index = tuple(rows if axis == "y" else slice(None) if axis in self._kept else 0 for axis in self._axes)
        return np.asarray(self._array[index]).transpose(self._order)


def ome_image(attributes: Mapping[str, Any]) -> tuple[list[str], list[str]] | None:
    """Return the names of the axes of a group's image and the paths of its levels; None if it is no OME-Zarr image.

    Args:
        attributes: Of the group, of any version up to 0.5.

    Raises:
        ImageError: It says that it is one, but not how.
    """
    images = attributes.get("ome", attributes).get("multiscales")
    if not images:
        return None
    try:
        axes = [axis if isinstance(axis, str) else str(axis["name"]) for axis in images[0].get("axes", FIRST_AXES)]
        return axes, [str(dataset["path"]) for dataset in images[0]["datasets"]]
    except (LookupError, TypeError, AttributeError) as error:
        raise ImageError(f"its OME-Zarr metadata is damaged ({error!r})") from error
