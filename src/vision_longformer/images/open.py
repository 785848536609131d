"""Choosing a reader by what a file is."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vision_longformer.images.adapters import ChosenReader, UprightReader
from vision_longformer.images.arrays import NpyReader
from vision_longformer.images.errors import GuardedReader, image_errors
from vision_longformer.images.pillow import PillowReader
from vision_longformer.images.reader import (
    MAX_PIXELS,
    ImageError,
    ImageInfo,
    Reader,
    UnsupportedError,
    check_file,
    check_pixels,
)
from vision_longformer.images.zarr import open_zarr
from vision_longformer.utils.remote import is_url

logger = logging.getLogger(__name__)

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NPY_START = b"\x93NUMPY"
# Of slides that are no TIFF, and of those that are one with a layout of their own.
SLIDE_SUFFIXES = (".mrxs", ".vms", ".vmu", ".czi", ".dcm", ".svs", ".ndpi", ".scn", ".bif", ".svslide")
ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")


@dataclass(frozen=True)
class Reading:
    """How an image is read, where its file leaves a choice.

    Attributes:
        level: Of the pyramid of a slide or TIFF, 0 for full resolution.
        channels: Which to take, counted from 0; None for all.
        value_range: Stored values that become 0 and 1; None where their type says.
        mpp: Micrometres a pixel, for which the next finer level is resampled; None for those of the level.
        magnification: Of a slide, the same as the power of a microscope's objective.
        tissue: Whether pixels of a slide that show bare glass count as missing (see `images.tissue`).

    Raises:
        ValueError: A number is negative, the range is empty, or the scale is stated twice.
    """

    level: int = 0
    channels: tuple[int, ...] | None = None
    value_range: tuple[float, float] | None = None
    mpp: float | None = None
    magnification: float | None = None
    tissue: bool = False

    def __post_init__(self) -> None:
        if self.level < 0:
            raise ValueError(f"level={self.level}: must be 0, which is full resolution, or more")
        if self.channels is not None and (not self.channels or min(self.channels) < 0):
            raise ValueError(f"channels={self.channels}: must be numbers of channels, counted from 0")
        if self.value_range is not None:
            low, high = self.value_range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"value_range={low:g}, {high:g}: must be two numbers, the lower one first")
        for name in ("mpp", "magnification"):
            scale = getattr(self, name)
            if scale is not None and not (math.isfinite(scale) and scale > 0):
                raise ValueError(f"{name}={scale}: must be above 0")
        if (self.mpp is not None) + (self.magnification is not None) + (self.level > 0) > 1:
            raise ValueError("level, mpp and magnification: give one of them")

    @property
    def model_channels(self) -> int:
        """Channels that a model needs for images read so: three, as gray is repeated, unless others are chosen."""
        return 3 if self.channels is None or len(self.channels) in (1, 3) else len(self.channels)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can store, for `from_dict`."""
        return {
            "level": self.level,
            "channels": None if self.channels is None else list(self.channels),
            "value_range": None if self.value_range is None else list(self.value_range),
            **{name: value for name in ("mpp", "magnification") if (value := getattr(self, name)) is not None},
            **({"tissue": True} if self.tissue else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Reading:
        """Build what `to_dict` described.

        Raises:
            ValueError: Something of it is impossible.
        """
        try:
            level, channels, value_range = values["level"], values["channels"], values["value_range"]
            tissue = values.get("tissue", False)
            if not isinstance(tissue, bool):
                raise ValueError(f"tissue={tissue!r}: must be true or false")
            mpp, power = (
                None if values.get(name) is None else float(values[name]) for name in ("mpp", "magnification")
            )
            return cls(
                int(level),
                None if channels is None else tuple(int(channel) for channel in channels),
                None if value_range is None else (float(value_range[0]), float(value_range[1])),
                mpp,
                power,
                tissue,
            )
        except (LookupError, TypeError, OverflowError) as error:
            raise ValueError(f"how images are read is damaged: {error!r}") from error


AS_STORED = Reading()


def open_reader(
    path: str | os.PathLike[str],
    *,
    level: int = 0,
    channels: Sequence[int] | None = None,
    value_range: tuple[float, float] | None = None,
    mpp: float | None = None,
    magnification: float | None = None,
    tissue: bool = False,
    array: str | None = None,
    max_pixels: int = MAX_PIXELS,
    upright: bool = True,
) -> GuardedReader:
    """Open an image to be read by rows: a TIFF of any kind, a slide, a Zarr or NumPy array, or an ordinary image.

    Args:
        path: A file, or the folder of a Zarr array; or its URL, see `images.remote`.
        level: See `Reading`, as for what follows.
        channels: Which channels to take, counted from 0; by default all.
        value_range: Stored values that become 0 and 1, where their type does not say so.
        mpp: Micrometres a pixel.
        magnification: As the power of a microscope's objective.
        tissue: Whether bare glass counts as missing.
        array: The array to take from a Zarr group.
        max_pixels: Refuse larger images that are decoded as a whole: ordinary ones, those that are turned, and others
            of which a single tile, strip or chunk is larger.
        upright: Turn it as EXIF, or a TIFF's tag, says; else rows and columns are as the file has them.

    Raises:
        ImageError: There is no such image, it is damaged, or reading it needs a package that is not installed.
        ValueError: A number is out of range, see `Reading`.
    """
    wanted = Reading(level, None if channels is None else tuple(channels), value_range, mpp, magnification, tissue)

    def opened_file(file: Path, number: int) -> Reader:
        return _open(file, level=number, array=array, max_pixels=max_pixels)

    def opened(number: int) -> Reader:
        if is_url(path):
            if mpp is not None or magnification is not None:
                raise ImageError("mpp and magnification are for files, and this is a URL: give a level, or fetch it")
            from vision_longformer.images.remote import open_remote

            open_copy = partial(opened_file, number=number)
            found = open_remote(str(path), open_copy, level=number, array=array, max_pixels=max_pixels)
        else:
            found = opened_file(Path(path), number)
        return _upright(found, upright, max_pixels)

    with image_errors(str(path)):
        as_stored = (mpp is None and magnification is None) or is_url(path)
        reader = opened(level) if as_stored else _at_scale(Path(path), wanted, opened)
        try:
            if tissue:
                reader = _without_glass(reader, str(path), value_range=value_range, array=array, upright=upright)
            if wanted.channels is not None or value_range is not None:
                reader = ChosenReader(reader, wanted.channels, value_range=value_range)
            guarded = GuardedReader(reader)
            logger.debug("%s: read by %s", path, type(reader).__name__)
            if level:
                with contextlib.closing(opened(0)) as whole:
                    size = whole.info.size
                down, across = (full / own for full, own in zip(size, guarded.info.size, strict=True))
                guarded.info = dataclasses.replace(guarded.info, downsample=(down, across), full_size=size)
            return guarded
        except BaseException:
            reader.close()
            raise


def _upright(reader: Reader, upright: bool, max_pixels: int) -> Reader:
    """Return a reader of the same image turned upright, if it is to be."""
    orientation = getattr(reader, "orientation", 1)
    if not upright or orientation == 1:
        return reader
    try:
        check_pixels(reader.info.name, reader.info.size, max_pixels)
    except ImageError:
        reader.close()
        raise
    return UprightReader(reader, orientation)


def _at_scale(path: Path, wanted: Reading, opened: Callable[[int], Reader]) -> Reader:
    from vision_longformer.images.scale import open_at_scale

    return open_at_scale(path, opened, mpp=wanted.mpp, magnification=wanted.magnification)


def _without_glass(
    reader: Reader, path: str, *, value_range: tuple[float, float] | None, array: str | None, upright: bool
) -> Reader:
    from vision_longformer.images.tissue import TissueReader, tissue_of

    return TissueReader(
        reader, lambda: tissue_of(path, reader.info.identity, value_range=value_range, array=array, upright=upright)
    )


def describe_image(
    path: str | os.PathLike[str], *, reading: Reading = AS_STORED, max_pixels: int = MAX_PIXELS, upright: bool = True
) -> ImageInfo:
    """Return what is known of an image before its pixels are read. See `open_reader`."""
    with contextlib.closing(open_reader(path, **vars(reading), max_pixels=max_pixels, upright=upright)) as reader:
        return reader.info


def read_georeference(path: str | os.PathLike[str], *, level: int = 0) -> dict[str, Any]:
    """Return where on earth a TIFF lies, turned upright (see `images.geotiff`); empty if it is none, or does not say.

    Args:
        path: Of the file.
        level: Of its pyramid, whose pixels are meant.

    Raises:
        ImageError: It is damaged, or it does say and rasterio is not installed.
    """
    if Path(path).is_dir() or not _first_bytes(path).startswith(TIFF_STARTS):
        return {}
    from vision_longformer.images.tiff import read_header

    header = read_header(path)
    if not header.georeferenced and not _has_sidecar(path):
        return {}
    from vision_longformer.images.geotiff import GeoReader

    with image_errors(str(path)), contextlib.closing(GeoReader(path, level=level)) as reader:
        return UprightReader(reader, header.orientation).info.georeference


def is_zarr(path: Path) -> bool:
    """Tell whether a path is the folder of a Zarr array or group."""
    return any((path / name).is_file() for name in ZARR_FILES)


def _open(path: Path, *, level: int, array: str | None, max_pixels: int) -> Reader:
    """Return what reads a file as it is stored."""
    if path.is_dir():
        if is_zarr(path):
            return open_zarr(path, array=array, max_pixels=max_pixels)
        raise ImageError(f"{path}: it is a folder, and no Zarr array")
    start = _first_bytes(path)
    if start.startswith(NPY_START):
        return NpyReader(path)
    if path.name.lower().endswith(".zarr.zip"):
        return open_zarr(path, array=array, max_pixels=max_pixels)
    if path.suffix.lower() in SLIDE_SUFFIXES:
        from vision_longformer.images.slides import SlideReader

        return SlideReader(path, level=level)
    if start.startswith(TIFF_STARTS):
        return _open_tiff(path, level=level, max_pixels=max_pixels)
    if level:
        raise ImageError(f"{path}: it has a single level of resolution, and no number {level}")
    return PillowReader(path, max_pixels=max_pixels)


def _open_tiff(path: Path, *, level: int, max_pixels: int) -> Reader:
    """Open a TIFF: with GDAL if it is a raster or has a mask, else with tifffile, or Pillow for what that lacks."""
    from vision_longformer.images.tiff import CUT_SHORT, EMPTY, TiffReader, read_header

    header = read_header(path)
    masked = header.masked or _has_sidecar(path)
    if (header.georeferenced or header.nodata or masked) and importlib.util.find_spec("rasterio"):
        from vision_longformer.images.geotiff import GeoReader

        if header.empty:
            raise ImageError(f"{path}: {EMPTY}")
        if header.cut_short:  # GDAL takes what is not named for zeros, whatever the height
            raise ImageError(f"{path}: {CUT_SHORT}")
        with contextlib.suppress(UnsupportedError):
            return GeoReader(
                path,
                level=level,
                orientation=header.orientation,
                multiplied=header.multiplied,
                max_pixels=max_pixels,
            )
    reader: Reader
    try:
        reader = TiffReader(path, level=level, max_pixels=max_pixels)
    except UnsupportedError as error:
        if level:
            raise
        try:
            reader = PillowReader(path, max_pixels=max_pixels)
        except ImageError as failure:
            raise ImageError(f"{error}, and as a whole {str(failure).removeprefix(f'{path}: ')}") from failure
        masked |= header.nodata
    if masked:
        unheeded = "what it says of missing pixels is not heeded without rasterio: pip install 'vision-longformer[geo]'"
        notes = filter(None, (reader.info.note, unheeded))
        reader.info = dataclasses.replace(reader.info, note="; ".join(notes))
    return reader


def _first_bytes(path: str | os.PathLike[str]) -> bytes:
    with image_errors(str(path)):
        check_file(path)
        with open(path, "rb", buffering=0) as file:
            return file.read(8)


def _has_sidecar(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file of GDAL's lies beside a raster: a mask, or more about it."""
    return any(Path(f"{path}{suffix}").is_file() for suffix in (".msk", ".aux.xml"))
