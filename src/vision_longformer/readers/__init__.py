"""Images that are read by rows."""
from vision_longformer.readers.arrays import ArrayReader
from vision_longformer.readers.base import ImageInfo, PixelRows, Reader

__all__ = ["ArrayReader", "ImageInfo", "PixelRows", "Reader"]
