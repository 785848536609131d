"""The formats that features are stored in, and writing them so that nothing half-written looks finished."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from vision_longformer.config import ModelConfig
from vision_longformer.features.formats import geotiff, parquet, zarr_folder
from vision_longformer.features.formats.encoded import Encoded
from vision_longformer.features.formats.manifest import check_files
from vision_longformer.features.formats.safetensors_file import write_safetensors
from vision_longformer.utils.atomic_files import replacing, replacing_folder
from vision_longformer.utils.digests import note_missing

METADATA_KEY = "vision_longformer"

Format = Literal["safetensors", "zarr", "geotiff"]
FORMATS: tuple[Format, ...] = ("safetensors", "zarr", "geotiff")
# "auto": safetensors for what fits into memory, else Zarr; "parquet": embeddings alone, many in a file
Choice = Format | Literal["auto", "parquet"]
_NEEDS = {
    "zarr": ("zarr", zarr_folder.MISSING),
    "geotiff": ("rasterio", geotiff.MISSING),
    "parquet": ("pyarrow", parquet.MISSING),
}


def check_format(kind: Choice) -> None:
    """Check that a format can be written here.

    Raises:
        ImportError: A package is missing; the message says how to install it.
    """
    module, missing = _NEEDS.get(kind, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        raise ImportError(missing)


def write_features(
    target: Path, encoded: Encoded, metadata: dict[str, Any], *, dtype: torch.dtype, kind: Format
) -> None:
    """Write the features of one image; what was at `target` is replaced once all is on disk.

    Args:
        target: A file for safetensors, else a folder.
        encoded: The features, of which a band at a time is in memory.
        metadata: The description.
        dtype: Of stored maps, tokens and embedding.
        kind: The format.

    Raises:
        ImportError: A package is missing.
        ValueError: A GeoTIFF of an image that does not say where it lies.
        OSError: The disk is full, cannot be written, or `target` is a folder of something else.
    """
    if kind == "safetensors":
        with replacing(target) as temporary:
            write_safetensors(temporary, encoded, {METADATA_KEY: json.dumps(metadata)}, dtype=dtype)
        return
    check_replaceable(target)
    write = zarr_folder.write_zarr if kind == "zarr" else geotiff.write_geotiff
    with replacing_folder(target) as temporary:
        write(temporary, encoded, metadata, dtype=dtype)


def read_folder_metadata(folder: Path) -> dict[str, Any] | None:
    """Return the description in a folder of features; None if it is none, or damaged."""
    found = zarr_folder.read_zarr_metadata(folder) or geotiff.read_geotiff_metadata(folder)
    return found if found is not None and found.get("content") == "features" else None


def check_folder(folder: Path, *, contents: bool = False) -> None:
    """Compare a folder of features with the list of its files, which older ones lack.

    Args:
        folder: The folder.
        contents: Whether to read every file.

    Raises:
        ValueError: A file is missing, new or damaged; names it.
    """
    is_zarr = (folder / zarr_folder.DESCRIPTION).exists()
    files = zarr_folder.read_zarr_files(folder) if is_zarr else geotiff.read_geotiff_files(folder)
    if files is None:
        note_missing(folder / zarr_folder.DESCRIPTION)
    else:
        check_files(folder, files, without=zarr_folder.DESCRIPTION if is_zarr else geotiff.TOKENS, contents=contents)


def is_whole_folder(folder: Path, *, contents: bool = False) -> bool:
    """Tell whether `check_folder` finds nothing."""
    try:
        check_folder(folder, contents=contents)
    except (OSError, ValueError, TypeError, AttributeError):
        return False
    return True


def safetensors_bytes(config: ModelConfig, size: tuple[int, int], stages: Sequence[int], dtype: torch.dtype) -> int:
    """Return what writing safetensors takes of memory beside the maps' own place: they are gathered, then stored.

    Args:
        config: Of the model.
        size: (height, width) of the image in pixels.
        stages: Whose maps are stored, counted from 1.
        dtype: Of stored values.
    """
    values = [
        math.prod(-(-side // config.strides[stage - 1]) for side in size) * config.stages[stage - 1].width
        for stage in stages
    ]
    return 4 * max(values, default=0) + 2 * dtype.itemsize * sum(values) + 2 * math.prod(size)


def check_replaceable(target: Path) -> None:
    """Raise if a folder at `target` holds something else than features."""
    if not target.is_dir():
        if target.exists():
            raise FileExistsError("there is a file of this name")
    elif any(target.iterdir()) and read_folder_metadata(target) is None:
        raise FileExistsError("there is a folder of this name that holds something else")
