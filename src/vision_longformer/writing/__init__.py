"""Features written in pieces: Zarr for large images, GeoTIFF for georeferenced ones."""

from vision_longformer.writing.encoded import Encoded, encoded_from_features, encoded_from_stream
from vision_longformer.writing.geotiff import write_geotiff
from vision_longformer.writing.zarr_folder import write_zarr

__all__ = ["Encoded", "encoded_from_features", "encoded_from_stream", "write_geotiff", "write_zarr"]
