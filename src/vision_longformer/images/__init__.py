"""The one door from files and arrays to pixels, and which of them are missing: whole, or by rows."""

from vision_longformer.images.adapters import ChosenReader, UprightReader
from vision_longformer.images.arrays import ArrayReader, NpyReader
from vision_longformer.images.open import AS_STORED, Reading, describe_image, open_reader, read_georeference
from vision_longformer.images.pillow import PillowReader, read_indices
from vision_longformer.images.pixels import ImageLike, Pixels, read_array, read_pixels, read_rgb
from vision_longformer.images.rasters import Raster, as_rgb, read_raster
from vision_longformer.images.reader import MAX_PIXELS, MAX_SIDE, ImageError, ImageInfo, PixelRows, Reader
from vision_longformer.images.values import unit_rows
from vision_longformer.images.zarr import open_zarr

__all__ = [
    "AS_STORED",
    "MAX_PIXELS",
    "MAX_SIDE",
    "ArrayReader",
    "ChosenReader",
    "ImageError",
    "ImageInfo",
    "ImageLike",
    "NpyReader",
    "PillowReader",
    "PixelRows",
    "Pixels",
    "Raster",
    "Reader",
    "Reading",
    "UprightReader",
    "as_rgb",
    "describe_image",
    "open_reader",
    "open_zarr",
    "read_array",
    "read_georeference",
    "read_indices",
    "read_pixels",
    "read_raster",
    "read_rgb",
    "unit_rows",
]
