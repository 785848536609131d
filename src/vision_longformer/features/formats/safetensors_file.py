"""Features as one safetensors file, written in pieces: maps and mask never are in memory as a whole.

H×W map or image, n rows, C channels

A safetensors file is the length of its header in 8 bytes, the header in JSON, and the tensors' bytes one after the
other: https://github.com/huggingface/safetensors#format. The library itself writes tensors that are in memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from vision_longformer.features.formats.chunks import BAND_BYTES, bands
from vision_longformer.features.formats.encoded import Encoded, MapRows
from vision_longformer.utils.tensor_files import bytes_of

NAMES = {torch.float16: "F16", torch.float32: "F32", torch.uint8: "U8"}
ALIGNMENT = 8


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
    header, places, size = _header(shapes | packed, metadata)  # `valid` comes last
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)
        for stage, features in zip(encoded.stages, encoded.maps, strict=True):
            _write_map(file, len(header) + places[f"stage{stage}"], features, dtype)
        file.seek(len(header) + places["embedding"])
        file.write(_bytes(encoded.embedding.to(dtype)))
        if not _write_valid(file, len(header) + places["valid"], encoded):
            without, *_ = _header(shapes, metadata)
            file.truncate(len(header) + places["valid"])
            file.seek(0)
            file.write(_padded(without[8:], len(header) - 8))


def _header(
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype]], metadata: dict[str, str]
) -> tuple[bytes, dict[str, int], int]:
    """Return the header, where each tensor begins after it, and the bytes of all tensors."""
    entries: dict[str, Any] = {"__metadata__": metadata}
    places, end = {}, 0
    for name, (shape, dtype) in sorted(shapes.items(), key=lambda item: -item[1][1].itemsize):  # aligned
        places[name] = end
        end += math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [places[name], end]}
    text = json.dumps(entries).encode()
    return _padded(text, len(text) + -len(text) % ALIGNMENT), places, end


def _padded(text: bytes, length: int) -> bytes:
    """Return a header, spaces at its end, after its length."""
    return length.to_bytes(8, "little") + text.ljust(length)


def _write_valid(file: BinaryIO, start: int, encoded: Encoded) -> bool:
    """Write which pixels are there from byte `start` on; return whether any is missing."""
    is_missing = False
    file.seek(start)
    for top, bottom in _pieces(encoded.size[0], encoded.size[1] * 16):  # read as float32, in several channels
        valid = encoded.valid.read(top, bottom).cpu().numpy()
        is_missing |= not valid.all()
        file.write(np.packbits(valid, axis=1).data)
    return is_missing


def _write_map(file: BinaryIO, start: int, features: MapRows, dtype: torch.dtype) -> None:
    """Write a map, which gives (n, W, C) rows, as (C, H, W) from byte `start` on."""
    height, width, channels = features.shape
    row_bytes = width * dtype.itemsize
    for top, bottom in _pieces(height, width * channels * 4):
        rows = features.read(top, bottom).cpu().to(dtype).permute(2, 0, 1).contiguous()  # (C, n, W)
        for channel, values in enumerate(rows):
            file.seek(start + (channel * height + top) * row_bytes)
            file.write(_bytes(values))


def _pieces(height: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    return bands(height, max(1, BAND_BYTES // row_bytes))


def _bytes(values: Tensor) -> memoryview:
    return bytes_of(values.cpu().contiguous())
