"""Images that are read by rows, so that they need not fit into memory."""

from vision_longformer.images.channels import ChosenReader
from vision_longformer.images.npy import open_npy
from vision_longformer.images.open import Reading, open_reader, read_georeference
from vision_longformer.images.pillow import PillowReader
from vision_longformer.images.reader import ImageInfo, PixelRows, Reader
from vision_longformer.images.zarr import ArrayReader, open_zarr

__all__ = [
    "ArrayReader",
    "ChosenReader",
    "ImageInfo",
    "PillowReader",
    "PixelRows",
    "Reader",
    "Reading",
    "open_npy",
    "open_reader",
    "open_zarr",
    "read_georeference",
]
