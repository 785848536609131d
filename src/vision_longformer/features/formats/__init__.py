"""Features written in pieces: Zarr for large images, GeoTIFF for georeferenced ones, safetensors for what is small."""

from vision_longformer.features.formats.encoded import Encoded, encoded_from_features, encoded_from_stream
from vision_longformer.features.formats.geotiff import write_geotiff
from vision_longformer.features.formats.table import FORMATS, Choice, Format, check_format, write_features
from vision_longformer.features.formats.zarr_folder import write_zarr

__all__ = [
    "FORMATS",
    "Choice",
    "Encoded",
    "Format",
    "check_format",
    "encoded_from_features",
    "encoded_from_stream",
    "write_features",
    "write_geotiff",
    "write_zarr",
]
