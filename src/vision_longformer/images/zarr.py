"""Zarr arrays, and OME-Zarr images, whose axes come in any order: rows, columns and channels are read.

H×W image, n rows, C channels
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vision_longformer.images.arrays import ArrayReader
from vision_longformer.images.errors import image_errors
from vision_longformer.images.reader import MAX_PIXELS, Array, ImageError, check_piece, identity
from vision_longformer.utils.remote import is_url

FIRST_AXES = "tczyx"  # of OME-Zarr before 0.3, whose metadata does not name them


def open_zarr(path: str | os.PathLike[str], *, array: str | None = None, max_pixels: int = MAX_PIXELS) -> ArrayReader:
    """Open a Zarr array of shape (height, width) or (height, width, channels), or an OME-Zarr image of any order.

    Args:
        path: A folder or zip file, or the URL of a folder.
        array: The name of the array in a group; by default the first level of an OME-Zarr image, the only
            array, or "0", as pyramids call theirs.
        max_pixels: Refuse arrays whose chunks, which are decoded at once, hold more.

    Raises:
        ImageError: It is missing, damaged, or no array of pixels.
        ImportError: zarr is not installed.
    """
    try:
        import zarr
        from zarr.storage import FsspecStore, LocalStore, ZipStore

        from vision_longformer.images.zarr_store import BoundedStore
    except ImportError as error:
        raise ImportError(f"{path}: reading Zarr needs zarr: pip install 'vision-longformer[zarr]'") from error
    with image_errors(str(path), "Zarr array"):
        remote = is_url(path)
        if not remote and not Path(path).exists():
            raise ImageError("there is no such file or folder")
        packed = Path(path).is_file()  # in a zip file, which zarr does not recognise by itself
        files: Any
        if remote:
            files = FsspecStore.from_url(str(path), read_only=True)
        else:
            files = ZipStore(path, mode="r") if packed else LocalStore(path, read_only=True)
        store = BoundedStore(files)
        found = zarr.open(store, mode="r")
        if isinstance(found, zarr.Group):
            found = _member(found, array)
        stored = found.array if isinstance(found, OmeImage) else found
        if min(stored.chunks) < 1:
            raise ImageError(f"its chunks, {'×'.join(map(str, stored.chunks))}, hold nothing")
        rows, columns = (*found.chunks, 1)[:2]
        check_piece(str(path), (rows, columns, math.prod(stored.chunks) // (rows * columns)), max_pixels)
        store.holds(stored)
    opacity = not isinstance(found, OmeImage)  # whose channels are those of a microscope
    return ArrayReader(
        found, name=str(path), preferred_rows=rows, opacity=opacity, identity="" if remote else identity(path)
    )


def _member(group: Any, name: str | None) -> Any:
    arrays = sorted(group.array_keys())
    axes, levels = ome_image(group.attrs.asdict()) or ([], [])
    if name is None:
        name = levels[0] if levels else arrays[0] if len(arrays) == 1 else "0"
    if name not in group:
        raise ImageError(f"there is no array {name!r} in this group; it has {', '.join(arrays) or 'none'}")
    return OmeImage(group[name], axes) if name in levels else group[name]


class OmeImage:
    """Slices an array with named axes by rows and columns, as (n, w) or (n, w, C).

    Args:
        array: Of a Zarr group.
        axes: Their names, in the order of the array's shape.

    Attributes:
        array: That one.

    Raises:
        ImageError: There are no rows or columns, or other axes than rows, columns and channels hold more than one.
    """

    def __init__(self, array: Any, axes: Sequence[str]) -> None:
        sizes = dict(zip(axes, array.shape, strict=False))
        others = [size for axis, size in sizes.items() if axis not in ("y", "x", "c")]
        if len(sizes) != len(array.shape) or not {"y", "x"} <= sizes.keys() or any(size != 1 for size in others):
            found = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
            raise ImageError(f"it is no single picture of rows, columns and channels (its axes: {found})")
        self.array, self._axes = array, tuple(axes)
        self._kept = [axis for axis in axes if axis in ("y", "x", "c")]
        self._order = [self._kept.index(axis) for axis in ("y", "x", "c") if axis in sizes]
        self.shape = tuple(sizes[axis] for axis in ("y", "x", "c") if axis in sizes)
        self.dtype = array.dtype
        self.chunks = tuple(array.chunks[self._axes.index(axis)] for axis in ("y", "x", "c") if axis in sizes)

    def __getitem__(self, place: tuple[slice, slice]) -> Array:
        wanted = {"y": place[0], "x": place[1], "c": slice(None)}
        index = tuple(wanted[axis] if axis in self._kept else 0 for axis in self._axes)
        return np.asarray(self.array[index]).transpose(self._order)


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
