"""Features as a Zarr group: chunked, compressed, and written a band at a time.

The group holds, for each stage s, `stage{s}` (H', W', C), `stage{s}_valid` (H', W') for its tokens and
`stage{s}_global_tokens` (G, C); and `embedding` (C,) and `valid` (H, W) for the pixels that were encoded.
`view/stage{s}` is an OME-Zarr image of the stage for viewers. The attribute "vision_longformer" describes it all.

H×W image, H'×W' map, C channels, G global tokens
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision_longformer.features.formats.chunks import bands, choose_chunk
from vision_longformer.features.formats.encoded import Encoded, MapRows, ValidRows
from vision_longformer.features.formats.manifest import Files, list_files
from vision_longformer.features.formats.view import Pyramid, image_attributes, multiscale
from vision_longformer.utils import strict_json
from vision_longformer.utils.digests import digest

METADATA_KEY = "vision_longformer"
FILES_KEY = "vision_longformer_files"  # the list of all files but the description
OWN = ""  # its entry for the description itself
DESCRIPTION = "zarr.json"
LEVEL = 3  # of compression
MASK_CHUNK = 2048  # pixels of a side
MASK_BYTES = 16 * 2**20  # of pixels that are read again at once
MISSING = "writing Zarr needs zarr: pip install 'vision-longformer[zarr]'"


def write_zarr(folder: Path, encoded: Encoded, metadata: dict[str, Any], *, dtype: torch.dtype) -> None:
    """Write features into an empty folder.

    Args:
        folder: Where the group's files go.
        encoded: The features.
        metadata: Becomes the attribute "vision_longformer".
        dtype: Of stored maps, tokens and embedding.

    Raises:
        ImportError: zarr is not installed.
        OSError: The disk is full, or cannot be written.
    """
    try:
        import zarr
    except ImportError as error:
        raise ImportError(MISSING) from error
    compressors = [
        zarr.codecs.BloscCodec(cname="zstd", clevel=LEVEL, shuffle="bitshuffle"),
        zarr.codecs.Crc32cCodec(),  # a damaged chunk is no other values, but an error
    ]
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    views = []
    for stage, stride, features in zip(encoded.stages, encoded.strides, encoded.maps, strict=True):
        name = f"stage{stage}"
        path = f"view/{name}"
        view = group.create_group(path)
        pyramid = Pyramid(view, features, compressors=compressors)
        _write_map(group, name, features, pyramid, dtype=dtype, compressors=compressors)
        levels = len(pyramid.sizes)
        view.attrs.update(image_attributes([multiscale(name, path="", levels=levels, stride=stride)]))
        views.append(multiscale(name, path=f"{path}/", levels=levels, stride=stride))
    for stage, tokens in zip(encoded.stages, encoded.global_tokens, strict=True):
        _write_tensor(group, f"stage{stage}_global_tokens", tokens.to(dtype), ["token", "c"], compressors=compressors)
    _write_tensor(group, "embedding", encoded.embedding.to(dtype), ["c"], compressors=compressors)
    _write_mask(group, encoded.valid, encoded.size, compressors=compressors)
    viewed = image_attributes(views) if views else {}
    group.attrs.update({METADATA_KEY: metadata, **viewed})
    _list_files(folder)


def read_zarr_metadata(folder: Path) -> dict[str, Any] | None:
    """Return the description in a Zarr folder; None if there is none, or it is damaged."""
    try:
        metadata = _read(folder)["attributes"][METADATA_KEY]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return metadata if isinstance(metadata, dict) else None


def read_zarr_files(folder: Path) -> Files | None:
    """Return the list of the files in a Zarr folder beside its description; None if it has none, as it is older.

    Raises:
        ValueError: The description, or the list in it, is damaged.
    """
    try:
        values = _read(folder)
        files = values["attributes"].get(FILES_KEY)
        if files is None:
            return None
        if files.pop(OWN) != _own_digest(values):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / DESCRIPTION}: is damaged {error}".rstrip()) from error
    found: Files = files
    return found


def _list_files(folder: Path) -> None:
    """Put the list of all other files into the description of a Zarr folder, and the description's own digest."""
    values = _read(folder)
    files: dict[str, Any] = dict(list_files(folder, without=DESCRIPTION))
    values["attributes"][FILES_KEY] = files
    files[OWN] = _own_digest(values)
    (folder / DESCRIPTION).write_text(json.dumps(values, indent=2))


def _own_digest(values: dict[str, Any]) -> str:
    return digest(json.dumps(values, sort_keys=True).encode())


def _read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = strict_json.parse((folder / DESCRIPTION).read_bytes())
    return found


def _write_map(
    group: Any, name: str, features: MapRows, pyramid: Pyramid, *, dtype: torch.dtype, compressors: Any
) -> None:
    height, width, channels = features.shape
    rows, columns = choose_chunk(features.shape, itemsize=dtype.itemsize)
    array = group.create_array(
        name,
        shape=features.shape,
        chunks=(min(rows, height), min(columns, width), channels),
        dtype=str(dtype).removeprefix("torch."),
        compressors=compressors,
        dimension_names=["y", "x", "c"],
    )
    for top, bottom in bands(height, rows):
        tokens = features.read(top, bottom).cpu()  # (n, W', C)
        array[top:bottom] = tokens.to(dtype).numpy()
        pyramid.add(tokens, None if features.valid is None else features.valid[top:bottom])
    pyramid.close()
    mask = _mask_array(group, f"{name}_valid", (height, width), compressors)
    if features.valid is not None:
        mask[:] = features.valid.cpu().numpy()


def _write_mask(group: Any, valid: ValidRows, size: tuple[int, int], *, compressors: Any) -> None:
    """Write which pixels are valid; where all of a chunk are, nothing is stored."""
    array = _mask_array(group, "valid", size, compressors)
    step = max(1, min(MASK_CHUNK, MASK_BYTES // (4 * size[1])))
    for top, bottom in bands(size[0], MASK_CHUNK):
        parts = [valid.read(upper, min(upper + step, bottom)) for upper in range(top, bottom, step)]
        rows = torch.cat(parts)
        if not bool(rows.all()):
            array[top:bottom] = rows.cpu().numpy()


def _mask_array(group: Any, name: str, size: tuple[int, int], compressors: Any) -> Any:
    return group.create_array(
        name,
        shape=size,
        chunks=(min(MASK_CHUNK, size[0]), min(MASK_CHUNK, size[1])),
        dtype="bool",
        fill_value=True,
        compressors=compressors,
        dimension_names=["y", "x"],
    )


def _write_tensor(group: Any, name: str, tensor: Tensor, axes: list[str], *, compressors: Any) -> None:
    values = tensor.cpu().numpy()
    chunks = tuple(max(1, side) for side in values.shape)
    array = group.create_array(
        name, shape=values.shape, chunks=chunks, dtype=values.dtype, compressors=compressors, dimension_names=axes
    )
    if values.size:
        array[:] = values
