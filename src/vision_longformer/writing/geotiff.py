"""Features as GeoTIFF: a tiled, compressed raster for each stage, where the image lies on earth.

H×W map, C channels, G global tokens
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vision_longformer.writing.chunks import bands, choose_chunk
from vision_longformer.writing.encoded import Encoded, MapRows

METADATA_KEY = "vision_longformer"
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
            "transform": rasterio.Affine(*scaled_transform(encoded.georeference["transform"], (stride, stride))),
        }
        path = folder / f"stage{stage}.tif"
        try:
            with rasterio.Env(GDAL_CACHEMAX=CACHE_MEGABYTES):
                _write_raster(path, features, place, text, dtype=dtype)
        except rasterio.errors.RasterioError as error:
            raise OSError(f"{path.name}: {error}") from error
    tensors: dict[str, Tensor] = {"embedding": encoded.embedding.to(dtype).contiguous()}
    for stage, tokens in zip(encoded.stages, encoded.global_tokens, strict=True):
        tensors[f"stage{stage}_global_tokens"] = tokens.to(dtype).contiguous()
    save_file(tensors, folder / TOKENS, metadata={METADATA_KEY: text})


def scaled_transform(transform: list[float], factors: tuple[float, float]) -> list[float]:
    """Return the transform of a raster with the same top left corner and larger pixels.

    Args:
        transform: (a, b, c, d, e, f); see `readers.geotiff`.
        factors: By how much pixels are higher and wider.
    """
    a, b, c, d, e, f = transform
    height, width = factors
    return [a * width, b * height, c, d * width, e * height, f]


def _write_raster(path: Path, features: MapRows, place: dict[str, Any], text: str, *, dtype: torch.dtype) -> None:
    import rasterio

    height, width, channels = features.shape
    rows, columns = choose_chunk(features.shape, itemsize=dtype.itemsize)
    options: dict[str, Any] = {"nbits": 16} if dtype == torch.float16 else {}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=channels,
        dtype="float32",
        nodata=float("nan"),
        tiled=True,
        blockysize=rows,
        blockxsize=max(columns, 256),
        interleave="band",  # a viewer shows few channels at a time
        compress="deflate",
        predictor=3,
        bigtiff="if_safer",
        **place,
        **options,
    ) as file:
        file.update_tags(**{METADATA_KEY: text})
        for top, bottom in bands(height, rows):
            values = features.read(top, bottom).cpu().to(dtype).float().permute(2, 0, 1)  # (C, n, W)
            if features.valid is not None:
                values = values.masked_fill(~features.valid[top:bottom].cpu(), float("nan"))
            window = rasterio.windows.Window(0, top, width, bottom - top)
            file.write(values.numpy(), window=window)
