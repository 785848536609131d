"""Reading features back: `load_features` opens a feature file of any size, and loads of its maps what is asked for.

H×W map or image, C channels, G global tokens
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_longformer.features.descriptions import check_metadata, read_metadata
from vision_longformer.features.formats.checked_file import CheckedFile
from vision_longformer.utils.tensor_files import DamagedError

Index = int | slice | EllipsisType


class StoredArray:
    """An array in a file. Slices of it are read when they are asked for, as NumPy arrays.

    Args:
        source: What is sliced.
        shape: Of the array.
        dtype: Of its values.
        channels_last: Whether `source` is (H, W, C) where the array is (C, H, W).

    Attributes:
        shape: (C, H, W) of a map, (H, W) of a mask.
        dtype: Of its values.
    """

    def __init__(
        self, source: Any, shape: tuple[int, ...], dtype: np.dtype[Any], *, channels_last: bool = False
    ) -> None:
        self._source, self._channels_last = source, channels_last
        self.shape, self.dtype = shape, dtype

    def __getitem__(self, index: Index | tuple[Index, ...]) -> NDArray[Any]:
        """Read a part: whole numbers and slices, as NumPy takes them."""
        given = index if isinstance(index, tuple) else (index,)
        parts = tuple(map(_within, _without_ellipsis(given, len(self.shape)), self.shape))
        if not self._channels_last:
            return self._read(parts)
        channels, rows, columns = parts
        found = self._read((rows, columns, channels))
        return np.moveaxis(found, -1, 0) if isinstance(channels, slice) else found

    def _read(self, parts: tuple[int | slice, ...]) -> NDArray[Any]:
        try:
            return np.asarray(self._source[parts])
        except (ValueError, RuntimeError, OSError) as error:  # of a checksum or a codec of Zarr
            if isinstance(error, DamagedError | IndexError):
                raise
            raise ValueError(f"{self._source}: is damaged ({error})") from error

    def tensor(self) -> Tensor:
        """Read all of it."""
        return torch.from_numpy(np.ascontiguousarray(self[...]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype})"


@dataclass(frozen=True)
class StoredFeatures:
    """Features in a file, named as in `Features`.

    Attributes:
        stages: Whose maps there are, counted from 1.
        maps: (C, H, W) of each.
        global_tokens: (G, C) of each; none at all in a safetensors file, which does not keep them.
        embedding: (C,).
        valid: (H, W) boolean, false where a pixel is missing or fully transparent.
        metadata: The description: model, settings, versions.
    """

    stages: tuple[int, ...]
    maps: tuple[StoredArray, ...]
    global_tokens: tuple[Tensor, ...]
    embedding: Tensor
    valid: StoredArray
    metadata: dict[str, Any]


def load_features(path: str | os.PathLike[str], *, verify: bool = True) -> StoredFeatures:
    """Open what `vil encode` wrote: a safetensors file or a Zarr folder.

    What is read, now or later by slices, is compared with the digests that were written with it, each part once, when
    it is read. Of a Zarr folder no file may be missing. Features without digests, which are older, open with a note.

    Args:
        path: The file or folder.
        verify: Whether to compare with digests. The chunks of Zarr have checksums that zarr looks at in any case.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: It holds no features, or is damaged. Reading a slice raises it too.
        ImportError: It is a Zarr folder, and zarr is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    metadata = read_metadata(path, check=False)
    if metadata is None:
        raise ValueError(f"{path}: it is no feature file of `vil encode`, or a damaged one")
    if verify:
        check_metadata(path)
    try:
        return _from_zarr(path, metadata) if path.is_dir() else _from_safetensors(path, metadata, verify=verify)
    except (KeyError, OSError, TypeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"{path}: it is damaged ({error})") from error


def _from_zarr(path: Path, metadata: dict[str, Any]) -> StoredFeatures:
    try:
        import zarr
    except ImportError as error:
        raise ImportError(f"{path}: reading Zarr needs zarr: pip install 'vision-longformer[zarr]'") from error
    group = zarr.open_group(path, mode="r")
    stages = tuple(metadata["stages"])
    maps = []
    for stage in stages:
        array: Any = group[f"stage{stage}"]
        height, width, channels = array.shape
        maps.append(StoredArray(array, (channels, height, width), array.dtype, channels_last=True))
    valid: Any = group["valid"]
    return StoredFeatures(
        stages=stages,
        maps=tuple(maps),
        global_tokens=tuple(_tensor(group[f"stage{stage}_global_tokens"]) for stage in stages),
        embedding=_tensor(group["embedding"]),
        valid=StoredArray(valid, valid.shape, valid.dtype),
        metadata=metadata,
    )


def _from_safetensors(path: Path, metadata: dict[str, Any], *, verify: bool) -> StoredFeatures:
    file = CheckedFile(path, verify=verify)
    stages = tuple(metadata["stages"])
    slices = [file.array(f"stage{stage}") for stage in stages]
    return StoredFeatures(
        stages=stages,
        maps=tuple(StoredArray(part, part.shape, part.dtype) for part in slices),
        global_tokens=(),
        embedding=torch.from_numpy(file.array("embedding")[...]),
        valid=_valid(file, (metadata["encoded_size"][0], metadata["encoded_size"][1])),
        metadata=metadata,
    )


def _valid(file: CheckedFile, size: tuple[int, int]) -> StoredArray:
    """Return the (H, W) mask of a safetensors file: eight pixels in a byte, or in older files one; none if all are."""
    source: Any = np.broadcast_to(np.True_, size)
    if "valid" in file.header.entries:
        source = file.array("valid")
        source = source if source.dtype == np.bool_ else _PackedMask(source, size[1])
    return StoredArray(source, size, np.dtype(np.bool_))


class _PackedMask:
    """An (H, W) mask whose rows are packed, eight pixels in a byte, the first in the highest bit."""

    def __init__(self, source: Any, width: int) -> None:
        self._source, self._width = source, width

    def __getitem__(self, parts: tuple[int | slice, ...]) -> NDArray[np.bool_]:
        rows, columns = parts
        packed = np.asarray(self._source[rows, :])
        return np.unpackbits(packed, axis=-1, count=self._width).view(np.bool_)[..., columns]


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.asarray(array[...]))


def _within(part: int | slice, length: int) -> int | slice:
    """End a slice where its axis ends, as NumPy does and not every file format."""
    if isinstance(part, int) or (part.step or 1) < 0:
        return part
    return slice(*part.indices(length))


def _without_ellipsis(parts: tuple[Index, ...], axes: int) -> tuple[int | slice, ...]:
    """Write out what an ellipsis, or too few parts, stand for."""
    before = [part is Ellipsis for part in parts]
    place = before.index(True) if True in before else len(parts)
    given = [part for part in parts if not isinstance(part, EllipsisType)]
    if len(given) > axes or sum(before) > 1:
        raise IndexError(f"{len(parts)} indices for {axes} axes")
    return (*given[:place], *[slice(None)] * (axes - len(given)), *given[place:])
