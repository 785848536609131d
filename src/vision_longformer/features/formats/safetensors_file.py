"""Features as one safetensors file, written in pieces: maps and mask never are in memory as a whole.

H×W map or image, n rows, C channels

The header comes last, as it holds the digests of what is written, which is read once more for them (see
`utils.tensor_files`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from vision_longformer.features.formats.chunks import BAND_BYTES, bands
from vision_longformer.features.formats.encoded import Encoded, MapRows
from vision_longformer.utils.digests import digests_of
from vision_longformer.utils.tensor_files import Header, bytes_of, write_whole


def write_safetensors(path: Path, encoded: Encoded, metadata: dict[str, str], *, dtype: torch.dtype) -> None:
    """Write `stage1` and so on as (C, H, W), `embedding` (C,), and `valid` where a pixel is missing.

    `valid` is (H, ⌈W/8⌉) bytes: a row's pixels eight in a byte, the first in the highest bit, 1 where there is one.

    Args:
        path: Of the file.
        encoded: The features.
        metadata: Of the file.
        dtype: Of stored maps and embedding.

    Raises:
        OSError: The disk is full, or cannot be written.
        ImageError: The image, which is read again for what of it is valid, is damaged.
    """
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        f"stage{stage}": ((features.shape[2], *features.shape[:2]), dtype)
        for stage, features in zip(encoded.stages, encoded.maps, strict=True)
    }
    shapes["embedding"] = (tuple(encoded.embedding.shape), dtype)
    packed = {"valid": ((encoded.size[0], -(-encoded.size[1] // 8)), torch.uint8)}
    header = Header.of(shapes | packed, metadata)  # `valid` comes last
    with path.open("w+b", buffering=0) as file:
        file.truncate(header.start + header.size)
        for stage, features in zip(encoded.stages, encoded.maps, strict=True):
            _write_map(file, header.start + header.entries[f"stage{stage}"].begin, features, dtype)
        file.seek(header.start + header.entries["embedding"].begin)
        write_whole(file, _bytes(encoded.embedding.to(dtype)))
        if not _write_valid(file, header.start + header.entries["valid"].begin, encoded):
            header = Header.of(shapes, metadata, start=header.start)
            file.truncate(header.start + header.size)
        file.seek(header.start)
        text = header.sealed(digests_of(file, header.size, block=header.block))
        file.seek(0)
        write_whole(file, text)


def _write_valid(file: BinaryIO, start: int, encoded: Encoded) -> bool:
    """Write which pixels are there from byte `start` on; return whether any is missing."""
    is_missing = False
    file.seek(start)
    for top, bottom in _pieces(encoded.size[0], encoded.size[1] * 16):  # read as float32, in several channels
        valid = encoded.valid.read(top, bottom).cpu().numpy()
        is_missing |= not valid.all()
        write_whole(file, np.packbits(valid, axis=1).data)
    return is_missing


def _write_map(file: BinaryIO, start: int, features: MapRows, dtype: torch.dtype) -> None:
    """Write a map, which gives (n, W, C) rows, as (C, H, W) from byte `start` on."""
    height, width, channels = features.shape
    row_bytes = width * dtype.itemsize
    for top, bottom in _pieces(height, width * channels * 4):
        rows = features.read(top, bottom).cpu().to(dtype).permute(2, 0, 1).contiguous()  # (C, n, W)
        for channel, values in enumerate(rows):
            file.seek(start + (channel * height + top) * row_bytes)
            write_whole(file, _bytes(values))


def _pieces(height: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    return bands(height, max(1, BAND_BYTES // row_bytes))


def _bytes(values: Tensor) -> memoryview:
    return bytes_of(values.cpu().contiguous())
