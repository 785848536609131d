"""Images that are read by rows, so that they need not fit into memory."""

from vision_longformer.readers.arrays import ArrayReader, open_zarr
from vision_longformer.readers.base import ImageInfo, PixelRows, Reader
from vision_longformer.readers.channels import ChannelsReader
from vision_longformer.readers.npy import open_npy
from vision_longformer.readers.opening import open_reader, read_georeference
from vision_longformer.readers.pillow import PillowReader

__all__ = [
    "ArrayReader",
    "ChannelsReader",
    "ImageInfo",
    "PillowReader",
    "PixelRows",
    "Reader",
    "open_npy",
    "open_reader",
    "open_zarr",
    "read_georeference",
]
