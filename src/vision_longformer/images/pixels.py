"""Whole images as floating-point pixels with validity, or as the 8-bit RGB images that augmentation takes.

H×W pixels, C channels. Values are in [0, 1]; 0 where a pixel is not valid.
"""

from __future__ import annotations

import io
import os
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vision_longformer.images.adapters import UprightReader
from vision_longformer.images.arrays import ArrayReader
from vision_longformer.images.bytes import BytesReader
from vision_longformer.images.open import open_reader
from vision_longformer.images.pillow import PillowReader
from vision_longformer.images.reader import (
    MAX_PIXELS,
    Array,
    ImageError,
    ImageInfo,
    Mask,
    PixelRows,
    Reader,
    check_pixels,
)
from vision_longformer.images.values import to_unit

ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.generic] | io.BytesIO | Reader


@dataclass(frozen=True)
class Pixels:
    """An image as the model takes it, before normalisation.

    Attributes:
        values: (H, W, C) float32 in [0, 1]; 0 where a pixel is not valid. Of an image all of whose pixels are valid it
            may be uint8, 0 to 255, instead.
        valid: (H, W) boolean, false where a pixel is missing or fully transparent.
        original_size: (height, width) in pixels as stored, after turning it upright.
        note: What of the file was left out, for people to read; "" if nothing was.
    """

    values: Tensor
    valid: Tensor
    original_size: tuple[int, int]
    note: str = ""


def read_pixels(
    image: ImageLike, *, channels: int = 3, max_side: int | None = None, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """Read an image: any file that `open_reader` opens, turned upright as it says.

    Args:
        image: A path; a Pillow image; the bytes of a file (`io.BytesIO`); a reader, which is closed; or an (H, W) or
            (H, W, C) array: booleans, uint8, uint16, or floats in [0, 1]. Arrays of 1, 2, 3 or 4 channels are gray,
            gray and opacity, RGB, RGB and opacity, unless they have `channels` channels.
        channels: Channels of the result. Gray is repeated; colour becomes gray for a single one.
        max_side: Larger images are shrunk so that their longer side has so many pixels; None keeps every pixel.
        max_pixels: Refuse larger files by what their header says, before they are decoded.

    Raises:
        ImageError: The image is missing, damaged, no image, too large, or has no defined range of values.
    """
    with closing(open_image(image, max_pixels)) as reader:
        return whole_pixels(reader, channels, max_side=max_side)


def whole_pixels(reader: Reader, channels: int, *, max_side: int | None = None, keep_bytes: bool = False) -> Pixels:
    """Read a whole image that is open. See `read_pixels`.

    Args:
        reader: The image.
        channels: Of the result.
        max_side: Of the result, in pixels.
        keep_bytes: Leave values uint8 where these are as good, which takes a quarter of the memory.
    """
    size = reader.info.size
    try:
        rows = reader.read_rows(0, size[0])
        if keep_bytes and shrunk_size(size, max_side) == size and _are_bytes(reader.info, rows, channels):
            copied = torch.from_numpy(np.array(rows.values, order="C"))
            return Pixels(copied, torch.ones(size, dtype=torch.bool), size, reader.info.note)
        values, valid = _unit(reader.info, rows, channels)
    except MemoryError as error:
        raise ImageError(f"{reader.info.name}: it does not fit into memory") from error
    values, valid = _shrink(values, valid, shrunk_size(size, max_side))
    return Pixels(values, valid, size, reader.info.note)


def read_array(image: ImageLike, *, max_pixels: int = MAX_PIXELS) -> tuple[Array, str]:
    """Return an image's (H, W) or (H, W, C) values as they are stored, upright, and a note on what was left out.

    Raises:
        ImageError: The image is missing, damaged, no image or too large.
    """
    with closing(open_image(image, max_pixels)) as reader:
        values, _ = reader.read_rows(0, reader.info.height)
        return values[..., 0] if reader.info.channels == 1 else values, reader.info.note


def read_rgb(image: ImageLike, *, max_pixels: int = MAX_PIXELS, upright: bool = True) -> Image.Image:
    """Read an image as 8-bit RGB: the pixels that `read_pixels` gives, black where they are not valid.

    Args:
        image: See `read_pixels`.
        max_pixels: Refuse larger files by what their header says, before they are decoded.
        upright: Turn it as EXIF says; else rows and columns are as the file has them.

    Raises:
        ImageError: See `read_pixels`.
    """
    with closing(open_image(image, max_pixels, upright=upright)) as reader:
        return whole_rgb(reader)


def whole_rgb(reader: Reader) -> Image.Image:
    """Read a whole image that is open, as `read_rgb` does."""
    return rgb_and_valid(reader)[0]


def rgb_and_valid(reader: Reader) -> tuple[Image.Image, Mask | None]:
    """Read a whole image that is open, as `read_rgb` does; and which (H, W) pixels are valid, None where all are."""
    image, valid = rgb_of_rows(reader.info, reader.read_rows(0, reader.info.height))
    if valid is not None and not valid.any():
        raise ImageError(_nothing(reader.info))
    return image, valid


def rgb_of_rows(info: ImageInfo, rows: PixelRows) -> tuple[Image.Image, Mask | None]:
    """Return rows or a window of an image as `read_rgb` does; and which pixels are valid, None where all are."""
    if _are_bytes(info, rows, 3):
        return Image.fromarray(np.ascontiguousarray(rows.values)), None
    values, valid = to_unit(info, rows, 3)
    image = Image.fromarray(values.clamp_(0, 1).mul_(255).round_().byte().contiguous().numpy())
    return image, None if bool(valid.all()) else valid.numpy()


def read_valid(reader: Reader, channels: int) -> tuple[Tensor, Tensor]:
    """Read a whole image that is open, of which something must be valid. See `Pixels` for what is returned."""
    return _unit(reader.info, reader.read_rows(0, reader.info.height), channels)


def shrunk_size(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """Return the (height, width) of an image whose longer side becomes at most `max_side` pixels."""
    longest = max(size)
    if max_side is None or longest <= max_side:
        return size
    return max(1, round(size[0] * max_side / longest)), max(1, round(size[1] * max_side / longest))


def open_image(image: ImageLike, max_pixels: int = MAX_PIXELS, *, upright: bool = True) -> Reader:
    """Open an image that is read as a whole. See `read_pixels`; the caller closes it.

    Raises:
        ImageError: It is missing, damaged, no image or too large.
    """
    if isinstance(image, np.ndarray):
        return ArrayReader(image)
    if isinstance(image, Image.Image):
        picture = PillowReader(image)
        return UprightReader(picture, picture.orientation) if upright and picture.orientation > 1 else picture
    reader: Reader
    if isinstance(image, str | os.PathLike):
        reader = open_reader(image, max_pixels=max_pixels, upright=upright)
    elif isinstance(image, io.BytesIO):
        reader = BytesReader(image, max_pixels=max_pixels, upright=upright)
    else:
        reader = image
    try:
        check_pixels(reader.info.name, reader.info.size, max_pixels)
    except ImageError:
        reader.close()
        raise
    return reader


def _are_bytes(info: ImageInfo, rows: PixelRows, channels: int) -> bool:
    """Tell whether all rows are valid, and their bytes are what a model of so many channels takes, times 255."""
    return info.channels == channels and info.dtype == np.uint8 and info.value_range is None and rows.valid is None


def _unit(info: ImageInfo, rows: PixelRows, channels: int) -> tuple[Tensor, Tensor]:
    """Do what `to_unit` does for a whole image, of which something must be valid."""
    values, valid = to_unit(info, rows, channels)
    if not bool(valid.any()):
        raise ImageError(_nothing(info))
    return values, valid


def _nothing(info: ImageInfo) -> str:
    return f"{info.name}: all of its pixels are transparent or missing"


def _shrink(values: Tensor, valid: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Shrink to (height, width) `size`: bicubic, or bilinear around missing pixels."""
    if tuple(valid.shape) == size:
        return values, valid
    maps = values.permute(2, 0, 1)[None]  # (1, C, H, W)
    if bool(valid.all()):
        small = F.interpolate(maps, size, mode="bicubic", antialias=True).clamp_(0, 1)
        return small[0].permute(1, 2, 0), valid.new_ones(size)
    share = F.interpolate(valid[None, None].float(), size, mode="bilinear", antialias=True)
    small = F.interpolate(maps, size, mode="bilinear", antialias=True) / share.clamp(min=1e-6)
    kept = share[0, 0] >= 0.5
    kept = kept if bool(kept.any()) else share[0, 0] == share.max()
    return torch.where(kept[..., None], small[0].permute(1, 2, 0).clamp(0, 1), 0), kept
