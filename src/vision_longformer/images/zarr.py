"""Arrays as images: NumPy arrays and everything else that can be sliced, Zarr arrays among it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from vision_longformer.images.decode import ImageError
from vision_longformer.images.ome_zarr import OmeImage, ome_image
from vision_longformer.images.reader import Array, ImageInfo, Mask, PixelRows, identity


class ArrayReader:
    """Reads an (H, W) or (H, W, C) array.

    Args:
        array: Anything with `shape`, `dtype` and NumPy's slicing.
        name: For messages.
        valid: (H, W) boolean, false where a pixel is missing; None where all are there.
        preferred_rows: Rows that are cheapest to read together.
        opacity: Whether the last of two or four channels is opacity.
        note: What of a file is left out.
        identity: Changes when the file does.
        value_range: Stored values that become 0 and 1, where their type does not say so.

    Raises:
        ImageError: The array has no pixels, or another number of axes.
    """

    def __init__(
        self,
        array: Any,
        *,
        name: str = "the image",
        valid: Mask | None = None,
        preferred_rows: int = 1,
        opacity: bool = True,
        note: str = "",
        identity: str = "",
        value_range: tuple[float, float] | None = None,
    ) -> None:
        shape = tuple(array.shape)
        if len(shape) not in (2, 3) or 0 in shape:
            raise ImageError(
                f"{name}: expected an array of shape (height, width) or (height, width, channels), got {shape}"
            )
        if valid is not None and valid.shape != shape[:2]:
            raise ImageError(f"{name}: its mask has shape {valid.shape}, the image {shape[:2]}")
        self._array, self._valid = array, valid
        self.info = ImageInfo(
            name=name,
            height=shape[0],
            width=shape[1],
            channels=shape[2] if len(shape) == 3 else 1,
            dtype=np.dtype(array.dtype),
            preferred_rows=preferred_rows,
            opacity=opacity,
            note=note,
            identity=identity,
            value_range=value_range,
        )

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        """Return rows `top` to `bottom`.

        Raises:
            ImageError: The array is in a file, which is damaged.
        """
        try:
            values: Array = np.asarray(self._array[top:bottom])
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ImageError(f"{self.info.name}: it is damaged ({error})") from error
        valid = None if self._valid is None else self._valid[top:bottom]
        return PixelRows(values if values.ndim == 3 else values[:, :, None], valid)

    def close(self) -> None:
        """Let go of the array."""
        self._array = None


def open_zarr(path: str | os.PathLike[str], *, array: str | None = None) -> ArrayReader:
    """Open a Zarr array of shape (height, width) or (height, width, channels), or an OME-Zarr image of any order.

    Args:
        path: A folder or zip file.
        array: The name of the array in a group; by default the first level of an OME-Zarr image, the only
            array, or "0", as pyramids call theirs.

    Raises:
        ImageError: It is missing, damaged, or no array of pixels.
        ImportError: zarr is not installed.
    """
    try:
        import zarr
    except ImportError as error:
        raise ImportError(f"{path}: reading Zarr needs zarr: pip install 'vision-longformer[zarr]'") from error
    if not Path(path).exists():
        raise ImageError(f"{path}: there is no such file or folder")
    try:
        found = zarr.open(str(path), mode="r")
        if isinstance(found, zarr.Group):
            found = _member(found, array)
        chunk_rows = int(found.chunks[0])
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except Exception as error:  # stores, codecs and metadata each raise their own
        raise ImageError(f"{path}: it is no Zarr array, or a damaged one ({error})") from error
    opacity = not isinstance(found, OmeImage)  # whose channels are those of a microscope
    return ArrayReader(found, name=str(path), preferred_rows=chunk_rows, opacity=opacity, identity=identity(path))


def _member(group: Any, name: str | None) -> Any:
    arrays = sorted(group.array_keys())
    axes, levels = ome_image(group.attrs.asdict()) or ([], [])
    if name is None:
        name = levels[0] if levels else arrays[0] if len(arrays) == 1 else "0"
    if name not in group:
        raise ImageError(f"there is no array {name!r} in this group; it has {', '.join(arrays) or 'none'}")
    return OmeImage(group[name], axes) if name in levels else group[name]
