"""Images that are read by rows, so that they need not fit into memory."""

from vision_longformer.readers.arrays import ArrayReader, open_zarr
from vision_longformer.readers.base import ImageInfo, PixelRows, Reader
from vision_longformer.readers.chosen import ChosenReader
from vision_longformer.readers.npy import open_npy
from vision_longformer.readers.opening import Reading, open_reader, read_georeference
from vision_longformer.readers.pillow import PillowReader

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
