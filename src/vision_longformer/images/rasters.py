"""Whole images as training, evaluation and prediction take them, of as many channels as the model.

H×W pixels, C channels. Photographs are 8-bit RGB images of Pillow's, which its augmentations take. What has another
number of channels is a (H, W, C) float32 array in [0, 1], which keeps all bits (and what lies beyond a stated range).
"""

from __future__ import annotations

import os
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vision_longformer.images.open import AS_STORED, Reading, open_reader
from vision_longformer.images.pixels import read_valid, rgb_and_valid, rgb_of_rows
from vision_longformer.images.reader import MAX_PIXELS, ImageError, Mask, Reader, Window, check_pixels, read_window
from vision_longformer.images.values import to_unit

Raster = Image.Image | NDArray[np.float32]


def read_raster(
    path: str | os.PathLike[str],
    *,
    reading: Reading = AS_STORED,
    max_pixels: int = MAX_PIXELS,
    upright: bool = True,
) -> Raster:
    """Read an image file: RGB, or as many channels as `reading` gives a model; 0 where pixels are not valid.

    Args:
        path: A file that `open_reader` opens.
        reading: What of it is read, and how.
        max_pixels: Refuse larger images.
        upright: Turn it as EXIF says; else rows and columns are as the file has them.

    Raises:
        ImageError: The image is missing, damaged, no image, too large, or its channels do not fit.
    """
    return read_raster_and_valid(path, reading=reading, max_pixels=max_pixels, upright=upright)[0]


def read_raster_and_valid(
    path: str | os.PathLike[str], *, reading: Reading = AS_STORED, max_pixels: int = MAX_PIXELS, upright: bool = True
) -> tuple[Raster, Mask | None]:
    """Read an image file; and which (H, W) pixels are valid, None where all are. See `read_raster`."""
    with closing(open_reader(path, **vars(reading), max_pixels=max_pixels, upright=upright)) as reader:
        check_pixels(reader.info.name, reader.info.size, max_pixels)
        return raster_and_valid(reader, reading.model_channels)


def whole_raster(reader: Reader, channels: int) -> Raster:
    """Read a whole image that is open. See `read_raster`."""
    return raster_and_valid(reader, channels)[0]


def raster_and_valid(reader: Reader, channels: int) -> tuple[Raster, Mask | None]:
    """Read a whole image that is open; and which (H, W) pixels are valid, None where all are. See `read_raster`."""
    if channels == 3:
        return rgb_and_valid(reader)
    try:
        values, valid = read_valid(reader, channels)
    except MemoryError as error:
        raise ImageError(f"{reader.info.name}: it does not fit into memory") from error
    return values.numpy(), None if bool(valid.all()) else valid.numpy()


def read_window_raster(reader: Reader, window: Window, channels: int) -> tuple[Raster, Mask | None]:
    """Read a part of an image that is open, of which all may be missing. See `raster_and_valid`."""
    rows = read_window(reader, window)
    if channels == 3:
        return rgb_of_rows(reader.info, rows)
    values, valid = to_unit(reader.info, rows, channels)
    return values.numpy(), None if bool(valid.all()) else valid.numpy()


def size_of(raster: Raster) -> tuple[int, int]:
    """Return an image's (height, width)."""
    return (raster.height, raster.width) if isinstance(raster, Image.Image) else (raster.shape[0], raster.shape[1])


def resized(raster: Raster, size: tuple[int, int], interpolation: str) -> Raster:
    """Return an image at (height, width) `size`, antialiased.

    Args:
        raster: The image.
        size: Of the result.
        interpolation: bicubic, bilinear or nearest.
    """
    if size_of(raster) == size:
        return raster
    if isinstance(raster, Image.Image):
        return raster.resize(size[::-1], Image.Resampling[interpolation.upper()])
    maps = torch.from_numpy(raster).permute(2, 0, 1)[None]  # (1, C, H, W)
    mode = "nearest-exact" if interpolation == "nearest" else interpolation
    small = F.interpolate(maps, size, mode=mode, antialias=interpolation != "nearest")
    found: NDArray[np.float32] = small[0].permute(1, 2, 0).contiguous().numpy()
    return found


def own_tensor(pixels: NDArray[np.generic]) -> Tensor:
    """Return a (H, W, C) array as a (C, H, W) tensor of its own."""
    # always a copy: along an axis of one pixel, NumPy takes any direction for contiguous, and PyTorch does not
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def unit_tensor(pixels: NDArray[np.generic]) -> Tensor:
    """Return (H, W, C) bytes or floats in [0, 1] as a (C, H, W) tensor in [0, 1]."""
    values = own_tensor(pixels)
    return values.float().div_(255) if values.dtype == torch.uint8 else values


def as_rgb(raster: Raster) -> Image.Image:
    """Return an image to look at: of other than three channels, the first three as colours, or the first as gray."""
    if isinstance(raster, Image.Image):
        return raster
    shown = raster[..., :3] if raster.shape[2] >= 3 else raster[..., :1].repeat(3, axis=2)
    return Image.fromarray(np.round(shown.clip(0, 1) * 255).astype(np.uint8))
