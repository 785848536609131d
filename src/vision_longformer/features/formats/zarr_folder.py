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
    group = create_group(folder)
    views = []
    for stage, stride, features in zip(encoded.stages, encoded.strides, encoded.maps, strict=True):
        name = f"stage{stage}"
        array, mask = create_map(group, name, features.shape, dtype=dtype)
        views.append(write_view(group, name, features, stride=stride, array=array))
        if features.valid is not None:
            mask[:] = features.valid.cpu().numpy()
    write_mask(create_mask(group, "valid", encoded.size), encoded.valid, 0, encoded.size[0])
    describe(group, folder, encoded, metadata, views, dtype=dtype)


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


def create_group(folder: Path) -> Any:
    """Make an empty group.

    Raises:
        ImportError: zarr is not installed.
    """
    try:
        import zarr
    except ImportError as error:
        raise ImportError(MISSING) from error
    return zarr.open_group(folder, mode="w", zarr_format=3)


def create_map(group: Any, name: str, shape: tuple[int, int, int], *, dtype: torch.dtype) -> tuple[Any, Any]:
    """Make the array of an (H, W, C) map, and that of its mask."""
    height, width, channels = shape
    rows, columns = choose_chunk(shape, itemsize=dtype.itemsize)
    array = group.create_array(
        name,
        shape=shape,
        chunks=(min(rows, height), min(columns, width), channels),
        dtype=str(dtype).removeprefix("torch."),
        compressors=_compressors(),
        dimension_names=["y", "x", "c"],
    )
    return array, create_mask(group, f"{name}_valid", (height, width))


def write_view(group: Any, name: str, features: MapRows, *, stride: int, array: Any = None) -> dict[str, Any]:
    """Write a map for viewers, and to its `array` if there is one, in one go; return what describes it."""
    path = f"view/{name}"
    view = group.create_group(path)
    pyramid = Pyramid(view, features, compressors=_compressors())
    step = choose_chunk(features.shape, itemsize=4)[0] if array is None else array.chunks[0]
    for top, bottom in bands(features.shape[0], step):
        tokens = features.read(top, bottom).cpu()  # (n, W', C)
        if array is not None:
            write_rows(array, tokens, top)
        pyramid.add(tokens, None if features.valid is None else features.valid[top:bottom])
    pyramid.close()
    levels = len(pyramid.sizes)
    view.attrs.update(image_attributes([multiscale(name, path="", levels=levels, stride=stride)]))
    return multiscale(name, path=f"{path}/", levels=levels, stride=stride)


def write_rows(array: Any, tokens: Tensor, top: int) -> None:
    """Write (n, W', C) rows of a map."""
    values = tokens.cpu().to(getattr(torch, str(array.dtype)))
    array[top : top + len(tokens)] = values.numpy()


def write_mask(array: Any, valid: ValidRows, first: int, last: int) -> None:
    """Write which pixels of some rows, whole chunks, are valid; where all of a chunk are, nothing is stored."""
    step = max(1, min(MASK_CHUNK, MASK_BYTES // (4 * array.shape[1])))
    for top in range(first, last, MASK_CHUNK):
        bottom = min(top + MASK_CHUNK, last)
        parts = [valid.read(upper, min(upper + step, bottom)) for upper in range(top, bottom, step)]
        rows = torch.cat(parts)
        if not bool(rows.all()):
            array[top:bottom] = rows.cpu().numpy()


def create_mask(group: Any, name: str, size: tuple[int, int]) -> Any:
    """Make the array of a mask, in which all is valid."""
    return group.create_array(
        name,
        shape=size,
        chunks=(min(MASK_CHUNK, size[0]), min(MASK_CHUNK, size[1])),
        dtype="bool",
        fill_value=True,
        compressors=_compressors(),
        dimension_names=["y", "x"],
    )


def describe(
    group: Any,
    folder: Path,
    encoded: Encoded,
    metadata: dict[str, Any],
    views: list[dict[str, Any]],
    *,
    dtype: torch.dtype,
) -> None:
    """Write tokens and embedding, and what says that the group is whole."""
    for stage, tokens in zip(encoded.stages, encoded.global_tokens, strict=True):
        _write_tensor(group, f"stage{stage}_global_tokens", tokens.to(dtype), ["token", "c"])
    _write_tensor(group, "embedding", encoded.embedding.to(dtype), ["c"])
    viewed = image_attributes(views) if views else {}
    group.attrs.update({METADATA_KEY: metadata, **viewed})
    _list_files(folder)


def _compressors() -> list[Any]:
    import zarr

    return [
        zarr.codecs.BloscCodec(cname="zstd", clevel=LEVEL, shuffle="bitshuffle"),
        zarr.codecs.Crc32cCodec(),  # a damaged chunk is no other values, but an error
    ]


def _write_tensor(group: Any, name: str, tensor: Tensor, axes: list[str]) -> None:
    values = tensor.cpu().numpy()
    chunks = tuple(max(1, side) for side in values.shape)
    array = group.create_array(
        name, shape=values.shape, chunks=chunks, dtype=values.dtype, compressors=_compressors(), dimension_names=axes
    )
    if values.size:
        array[:] = values
