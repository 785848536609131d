"""Features as GeoTIFF: a tiled, compressed raster for each stage, where the image lies on earth.

H×W map, C channels, G global tokens
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_longformer.features.formats.chunks import SIDE, bands, choose_chunk
from vision_longformer.features.formats.encoded import Encoded, MapRows
from vision_longformer.features.formats.manifest import Files, list_files
from vision_longformer.features.formats.noting_file import NotingFile
from vision_longformer.images.geotiff import scaled_georeference
from vision_longformer.utils import strict_json
from vision_longformer.utils.tensor_files import open_file, read_header, write_tensors

METADATA_KEY = "vision_longformer"
FILES_KEY = "vision_longformer_files"  # the list of all other files
TOKENS = "tokens.safetensors"  # what is no raster
CACHE_MEGABYTES = 64  # of tiles that wait to be written
MISSING = "writing GeoTIFF needs rasterio: pip install 'vision-longformer[geo]'"


def write_geotiff(folder: Path, encoded: Encoded, metadata: dict[str, Any], *, dtype: torch.dtype) -> None:
    """Write features into an empty folder: `stage{s}.tif` for each stage s, and `tokens.safetensors`.

    A raster has a band for each channel and a pixel for each token; tokens that hold no pixel of the image's are
    NaN, which the file names as its no-data value. `tokens.safetensors` has `embedding` (C,) and
    `stage{s}_global_tokens` (G, C), and the description under the key "vision_longformer" of its metadata.

    Args:
        folder: Where the files go.
        encoded: The features; they must have a georeference.
        metadata: The description; also a tag of each raster.
        dtype: Of stored values, float16 or float32.

    Raises:
        ImportError: rasterio is not installed.
        ValueError: The image does not say where it lies.
        OSError: The disk is full, or cannot be written.
    """
    if not encoded.georeference:
        raise ValueError("it has no georeference, which GeoTIFF needs: choose another format")
    try:
        import rasterio
    except ImportError as error:
        raise ImportError(MISSING) from error
    text = json.dumps(metadata)
    for stage, stride, features in zip(encoded.stages, encoded.strides, encoded.maps, strict=True):
        place = {
            "crs": encoded.georeference["crs"],
            "transform": rasterio.Affine(*scaled_georeference(encoded.georeference, (stride, stride))["transform"]),
        }
        path = folder / f"stage{stage}.tif"
        with rasterio.Env(GDAL_CACHEMAX=CACHE_MEGABYTES):
            _write_raster(path, features, place, text, dtype=dtype)
    tensors: dict[str, Tensor] = {"embedding": encoded.embedding.to(dtype).contiguous()}
    for stage, tokens in zip(encoded.stages, encoded.global_tokens, strict=True):
        tensors[f"stage{stage}_global_tokens"] = tokens.to(dtype).contiguous()
    files = json.dumps(list_files(folder, without=TOKENS))
    write_tensors(folder / TOKENS, tensors, {METADATA_KEY: text, FILES_KEY: files})


def read_geotiff_metadata(folder: Path) -> dict[str, Any] | None:
    """Return the description in a folder of rasters; None if there is none, or it is damaged."""
    metadata = _read(folder, METADATA_KEY)
    return metadata if isinstance(metadata, dict) else None


def read_geotiff_files(folder: Path) -> Files | None:
    """Return the list of the files in a folder of rasters; None if it has none, as it is older."""
    files = _read(folder, FILES_KEY)
    return files if isinstance(files, dict) else None


def _read(folder: Path, key: str) -> Any:
    try:
        with open_file(folder / TOKENS) as file:
            return strict_json.parse(read_header(file, folder / TOKENS).metadata.get(key, "null"))
    except ValueError:
        return None


def _write_raster(path: Path, features: MapRows, place: dict[str, Any], text: str, *, dtype: torch.dtype) -> None:
    import rasterio

    errors: list[OSError] = []  # GDAL writes late, prints what goes wrong, and may say nothing of it
    try:
        with rasterio.open(
            path,
            "w",
            opener=lambda name, mode="rb": NotingFile(name, mode, errors),
            **_profile(features, dtype=dtype),
            **place,
        ) as file:
            file.update_tags(**{METADATA_KEY: text})
            for top, bottom in bands(features.shape[0], file.block_shapes[0][0]):
                window = rasterio.windows.Window(0, top, features.shape[1], bottom - top)
                file.write(_values(features, top, bottom, dtype=dtype), window=window)
                if errors:
                    break
    except (rasterio.errors.RasterioError, rasterio.errors.CRSError) as error:
        errors.append(OSError(f"{path.name}: {error}"))
    if errors:
        raise errors[0]


def _profile(features: MapRows, *, dtype: torch.dtype) -> dict[str, Any]:
    """Return what describes a raster, its place aside."""
    height, width, channels = features.shape
    rows, columns = choose_chunk(features.shape, itemsize=dtype.itemsize)
    halved: dict[str, Any] = {"nbits": 16} if dtype == torch.float16 else {}
    return {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": channels,
        "dtype": "float32",
        "nodata": float("nan"),
        "tiled": True,
        "blockysize": rows,
        "blockxsize": max(columns, SIDE),  # a tile has one channel
        "interleave": "band",  # a viewer shows few channels at a time
        "compress": "deflate",
        "predictor": 3,
        "bigtiff": "if_safer",
        **halved,
    }


def _values(features: MapRows, top: int, bottom: int, *, dtype: torch.dtype) -> NDArray[np.float32]:
    """Return rows as (C, n, W), NaN where a token is not real."""
    values = features.read(top, bottom).cpu().to(dtype).float().permute(2, 0, 1)
    if features.valid is not None:
        values = values.masked_fill(~features.valid[top:bottom].cpu(), float("nan"))
    found: NDArray[np.float32] = values.numpy()
    return found
