"""Ordinary images: JPEG, PNG, WebP and whatever else Pillow reads."""

from __future__ import annotations

import os

from vision_longformer.images.decode import MAX_PIXELS, read_array
from vision_longformer.images.reader import identity
from vision_longformer.images.zarr import ArrayReader


class PillowReader(ArrayReader):
    """Reads an image file as `images.decode.read_pixels` does. It is decoded as a whole, and kept as it is stored.

    Args:
        path: Of the file.
        max_pixels: Refuse larger files by what their header says, before they are decoded.

    Raises:
        ImageError: The file is missing, damaged, no image, or too large.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> None:
        array, note = read_array(path, max_pixels=max_pixels)
        super().__init__(array, name=str(path), note=note, identity=identity(path))
