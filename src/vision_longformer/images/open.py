"""Choosing a reader by what a file is."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vision_longformer.images.channels import ChosenReader
from vision_longformer.images.decode import MAX_PIXELS, ORIENTATION_TAG, ImageError, check_pixels, open_picture
from vision_longformer.images.npy import open_npy
from vision_longformer.images.pillow import PillowReader
from vision_longformer.images.reader import ImageInfo, Reader
from vision_longformer.images.zarr import open_zarr

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NPY_START = b"\x93NUMPY"
# Of slides that are no TIFF, and of those that are one with a layout of their own.
SLIDE_SUFFIXES = (".mrxs", ".vms", ".vmu", ".czi", ".dcm", ".svs", ".ndpi", ".scn", ".bif", ".svslide")
ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")
GEO_TAGS = (33550, 33922, 34264, 34735, 42113)  # scale, tie points, transformation, keys, GDAL's no-data value


@dataclass(frozen=True)
class Reading:
    """How an image is read, where its file leaves a choice.

    Attributes:
        level: Of the pyramid of a slide or TIFF, 0 for full resolution.
        channels: Which to take, counted from 0; None for all.
        value_range: Stored values that become 0 and 1; None where their type says.

    Raises:
        ValueError: A number is negative, or the range is empty.
    """

    level: int = 0
    channels: tuple[int, ...] | None = None
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.level < 0:
            raise ValueError(f"level={self.level}: must be 0, which is full resolution, or more")
        if self.channels is not None and (not self.channels or min(self.channels) < 0):
            raise ValueError(f"channels={self.channels}: must be numbers of channels, counted from 0")
        if self.value_range is not None:
            low, high = self.value_range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"value_range={low:g}, {high:g}: must be two numbers, the lower one first")


AS_STORED = Reading()


def open_reader(
    path: str | os.PathLike[str],
    *,
    level: int = 0,
    channels: Sequence[int] | None = None,
    value_range: tuple[float, float] | None = None,
    array: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Reader:
    """Open an image to be read by rows: a TIFF of any kind, a slide, a Zarr or NumPy array, or an ordinary image.

    Args:
        path: A file, or the folder of a Zarr array.
        level: See `Reading`, as for what follows.
        channels: Which channels to take, counted from 0; by default all.
        value_range: Stored values that become 0 and 1, where their type does not say so.
        array: The array to take from a Zarr group.
        max_pixels: Refuse larger ordinary images, which are decoded as a whole.

    Raises:
        ImageError: There is no such image, it is damaged, or reading it needs a package that is not installed.
        ValueError: A number is out of range, see `Reading`.
    """
    wanted = Reading(level, None if channels is None else tuple(channels), value_range)
    try:
        reader = _open(Path(path), level=level, array=array, max_pixels=max_pixels)
    except ImportError as error:
        raise ImageError(str(error)) from error
    if wanted.channels is None and value_range is None:
        return reader
    return ChosenReader(reader, wanted.channels, value_range=value_range)


def read_georeference(path: str | os.PathLike[str], *, level: int = 0) -> dict[str, Any]:
    """Return where on earth a TIFF lies (see `images.geotiff`); empty if it is none, or does not say.

    Args:
        path: Of the file.
        level: Of its pyramid, whose pixels are meant.

    Raises:
        ImageError: It is damaged, or it does say and rasterio is not installed.
    """
    if Path(path).is_dir():
        return {}
    try:
        with Path(path).open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ImageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if not start.startswith(TIFF_STARTS):
        return {}
    from vision_longformer.images.tiff import has_tags

    if not has_tags(path, GEO_TAGS[:-1]):
        return {}
    from vision_longformer.images.geotiff import GeoReader, scaled_georeference

    try:
        reader = GeoReader(path)
    except ImportError as error:
        raise ImageError(str(error)) from error
    reader.close()
    if not level:
        return reader.info.georeference
    with contextlib.closing(open_reader(path, level=level)) as smaller:
        factors = (reader.info.height / smaller.info.height, reader.info.width / smaller.info.width)
    return scaled_georeference(reader.info.georeference, factors)


def describe_image(
    path: str | os.PathLike[str], *, reading: Reading = AS_STORED, max_pixels: int = MAX_PIXELS
) -> ImageInfo:
    """Return what is known of an image before its pixels are read. Ordinary images are not decoded for it.

    Args:
        path: A file, or the folder of a Zarr array.
        reading: How it would be read.
        max_pixels: Refuse larger ordinary images, as `open_reader` does.

    Raises:
        ImageError: There is no such image, it is damaged, or reading it needs a package that is not installed.
    """
    try:
        with Path(path).open("rb") as file, open_picture(file) as image:
            if image.format != "TIFF" and reading == AS_STORED:
                check_pixels(image, max_pixels)
                height, width = image.size if image.getexif().get(ORIENTATION_TAG, 1) >= 5 else image.size[::-1]
                channels = len(image.getbands())
                return ImageInfo(str(path), height, width, channels, np.dtype(np.uint8))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except (OSError, SyntaxError, ValueError):
        pass  # it may be something else than Pillow knows, and else is explained below
    with contextlib.closing(open_reader(path, **vars(reading), max_pixels=max_pixels)) as reader:
        return reader.info


def is_zarr(path: Path) -> bool:
    """Tell whether a path is the folder of a Zarr array or group."""
    return any((path / name).is_file() for name in ZARR_FILES)


def _open(path: Path, *, level: int, array: str | None, max_pixels: int) -> Reader:
    if path.is_dir():
        if is_zarr(path):
            return open_zarr(path, array=array)
        raise ImageError(f"{path}: it is a folder, and no Zarr array")
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ImageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if start.startswith(NPY_START):
        return open_npy(path)
    if path.name.lower().endswith(".zarr.zip"):
        return open_zarr(path, array=array)
    if path.suffix.lower() in SLIDE_SUFFIXES:
        from vision_longformer.images.slides import SlideReader

        return SlideReader(path, level=level)
    if start.startswith(TIFF_STARTS):
        return _open_tiff(path, level=level, max_pixels=max_pixels)
    if level:
        raise ImageError(f"{path}: it has a single level of resolution, and no number {level}")
    return PillowReader(path, max_pixels=max_pixels)


def _open_tiff(path: Path, *, level: int, max_pixels: int) -> Reader:
    try:
        from vision_longformer.images.tiff import TiffReader, UnsupportedTiffError, has_tags
    except ImportError as error:
        raise ImportError(f"{path}: reading it needs tifffile: pip install tifffile") from error
    if level == 0 and has_tags(path, GEO_TAGS) and importlib.util.find_spec("rasterio"):
        from vision_longformer.images.geotiff import GeoReader

        return GeoReader(path)
    try:
        return TiffReader(path, level=level)
    except UnsupportedTiffError as error:
        if level:
            raise
        return _open_whole_tiff(path, error, max_pixels=max_pixels)


def _open_whole_tiff(path: Path, reason: ImageError, *, max_pixels: int) -> Reader:
    """Open a TIFF that cannot be read by rows for some reason: palettes, turned images and the like."""
    from vision_longformer.images.tiff import NODATA_TAG, has_tags

    try:
        reader = PillowReader(path, max_pixels=max_pixels)
    except ImageError as error:
        raise ImageError(f"{reason}, and as a whole {str(error).removeprefix(f'{path}: ')}") from error
    if has_tags(path, (NODATA_TAG,)):
        unheeded = "its no-data value is not heeded without rasterio: pip install 'vision-longformer[geo]'"
        notes = filter(None, (reader.info.note, unheeded))
        reader.info = dataclasses.replace(reader.info, note="; ".join(notes))
    return reader
