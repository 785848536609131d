"""Image files, Pillow images and arrays as floating-point pixels, at the depth they were stored with.

H×W pixels, C channels. Values are in [0, 1]; colour is RGB, as stored: colour profiles are not applied.

Transparency: colours are taken as stored, whatever their opacity, and a pixel of opacity 0 is not valid. NaN says
that a pixel is missing, and makes it not valid too.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile
from torch import Tensor
from torch.nn import functional as F

ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.generic]
Array = NDArray[np.generic]

MAX_PIXELS = 500_000_000
MAX_SIDE = 10_000_000  # of images that are planned or made up; numbers of their bytes stay within 64 bits
ORIENTATION_TAG = 0x0112  # of EXIF
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow turns colour into gray
FULL_SCALE = {"b1": 1, "u1": 255, "u2": 65535}  # by NumPy's kind and bytes of a value
# Pillow holds colour in 8 bits: of 16-bit values it keeps the high bytes. Told the wrong byte order, it keeps the low
# ones, so that two readings have all bits.
_OPPOSITE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
SWAPPED_BYTES = {
    f"{mode};16{order}": f"{mode};16{opposite}" for mode in ("RGB", "RGBA") for order, opposite in _OPPOSITE.items()
}

_BACK = {6: 8, 8: 6}  # the orientation that undoes another, where that is not the same one

_pillow_limit = threading.Lock()


class ImageError(ValueError):
    """An image cannot be read; the message names it and says why."""


@dataclass(frozen=True)
class Pixels:
    """An image as the model takes it, before normalisation.

    Attributes:
        values: (H, W, C) float32 in [0, 1]; 0 where a pixel is not valid.
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
    """Read an image.

    Files are all that Pillow reads: JPEG, PNG, WebP, TIFF and more. They are turned upright as EXIF says. 16-bit
    images keep all their bits, gray or colour; the few that cannot (16-bit gray with opacity, among others) are read
    with 8. Of animations and files of several pages only the first picture is read. `Pixels.note` says so.

    Args:
        image: A path; a Pillow image; or an (H, W) or (H, W, C) array: booleans, uint8, uint16, or floats in [0, 1].
            Arrays of 1, 2, 3 or 4 channels are gray, gray and opacity, RGB, RGB and opacity, unless they have
            `channels` channels.
        channels: Channels of the result. Gray is repeated; colour becomes gray for a single one.
        max_side: Larger images are shrunk so that their longer side has so many pixels; None keeps every pixel.
        max_pixels: Refuse larger files by what their header says, before they are decoded.

    Raises:
        ImageError: The image is missing, damaged, no image, too large, or has no defined range of values.
    """
    name = str(image) if isinstance(image, str | os.PathLike) else "the image"
    try:
        array, note = _to_array(image, max_pixels)
        values, valid = _unit_range(array, channels)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except MemoryError as error:
        raise ImageError(f"{name}: it does not fit into memory") from error
    original_size = (values.shape[0], values.shape[1])
    values, valid = _shrink(values, valid, max_side)
    return Pixels(values, valid, original_size, note)


def read_array(image: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[Array, str]:
    """Return a file's (H, W) or (H, W, C) values as they are stored, upright, and a note on what was left out.

    Raises:
        ImageError: The image is missing, damaged, no image, too large, or has no defined range of values.
    """
    try:
        return _to_array(image, max_pixels)
    except ImageError as error:
        raise ImageError(f"{image}: {error}") from error
    except MemoryError as error:
        raise ImageError(f"{image}: it does not fit into memory") from error


def read_rgb(image: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, upright: bool = True) -> Image.Image:
    """Read a file as an 8-bit RGB image, as augmentation takes it; opacity is dropped.

    Args:
        image: A path.
        max_pixels: Refuse larger files by what their header says, before they are decoded.
        upright: Turn it as EXIF says; else rows and columns are as the file has them.

    Raises:
        ImageError: The image is missing, damaged, no image, too large, or has no defined range of values.
    """
    try:
        array, _ = _to_array(image, max_pixels, upright=upright)
        if array.dtype != np.uint8 or array.ndim == 2 or array.shape[2] != 3:
            values, _ = _unit_range(array, 3)
            array = values.mul_(255).round_().byte().numpy()
    except ImageError as error:
        raise ImageError(f"{image}: {error}") from error
    return Image.fromarray(np.ascontiguousarray(array))


def read_indices(image: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Array:
    """Return the (H, W) whole numbers that an image of one channel stores: gray values, or indices into its palette.

    Rows and columns are as the file has them, whatever EXIF says.

    Raises:
        ImageError: The image is missing, damaged, no image, too large, or has several channels.
    """
    with _image_errors(str(image)), Path(image).open("rb") as file, open_picture(file) as opened:
        if opened.width * opened.height > max_pixels:
            raise ImageError(
                f"{image}: it has {opened.width}×{opened.height} pixels, more than {max_pixels:,} (max_pixels)"
            )
        if opened.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
            raise ImageError(
                f"{image}: has several channels or fractions ({opened.mode}), expected one of whole numbers"
            )
        raw_modes = {_raw_mode(tile) for tile in opened.tile} if isinstance(opened, ImageFile) else set()
        orientation = _orientation(opened)
        array: Array = np.asarray(opened).astype(np.int64)
        array = _as_stored(array, before=orientation, after=_orientation(opened))
    # Pillow stretches gray values of 2 and 4 bits to 0 to 255
    return array // (85 if raw_modes == {"L;2"} else 17 if raw_modes == {"L;4"} else 1)


def read_size(image: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (height, width) by a file's header, as it is stored: not yet turned upright.

    Raises:
        ImageError: The image is missing, damaged or no image.
    """
    with _image_errors(str(image)), Path(image).open("rb") as file, open_picture(file) as opened:
        if isinstance(opened, TiffImageFile):  # whose size Pillow gives as that of the upright image
            return int(opened.tag_v2[IMAGELENGTH]), int(opened.tag_v2[IMAGEWIDTH])
        return opened.height, opened.width


def read_orientation(image: str | os.PathLike[str]) -> int:
    """Return EXIF's orientation, 1 to 8, of a file; 1, upright, where it has none.

    Raises:
        ImageError: The image is missing, damaged or no image.
    """
    with _image_errors(str(image)), Path(image).open("rb") as file, open_picture(file) as opened:
        return _orientation(opened)


# --- decoding ---------------------------------------------------------------------------------------------------


def _to_array(image: ImageLike, max_pixels: int, *, upright: bool = True) -> tuple[Array, str]:
    """Return an (H, W) or (H, W, C) array and a note on what was left out."""
    if isinstance(image, np.ndarray):
        return image, ""
    with _image_errors():
        if isinstance(image, Image.Image):
            return _decode(image, upright), ""
        with Path(image).open("rb") as file, open_picture(file) as opened:
            check_pixels(opened, max_pixels)
            return _decode_file(opened, file, upright)


def check_pixels(image: Image.Image, max_pixels: int) -> None:
    """Raise `ImageError` if an image that is not decoded yet has too many pixels by its header."""
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"it has {width}×{height} pixels by its header, more than the limit of {max_pixels:,} (max_pixels)"
        )


@contextmanager
def _image_errors(name: str = "") -> Iterator[None]:
    """Turn all that reading an image can raise into `ImageError`, beginning with the image's name if one is given."""
    before = f"{name}: " if name else ""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{before}it is not an image that can be read") from error
    except OSError as error:
        reason = error.strerror or f"it is damaged or cut short ({error})"
        raise ImageError(before + reason[0].lower() + reason[1:]) from error
    except (SyntaxError, ValueError, EOFError, RuntimeError, ArithmeticError, LookupError) as error:
        raise ImageError(f"{before}it is damaged ({error})") from error  # all of these come out of decoders


@contextmanager
def open_picture(file: BinaryIO) -> Iterator[Image.Image]:
    """Open an image without Pillow's limit on pixels, which is global: ours is checked in its place."""
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def _decode_file(image: Image.Image, file: BinaryIO, upright: bool) -> tuple[Array, str]:
    notes = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append("only the first picture of several was read")
    raw_modes = {_raw_mode(tile) for tile in image.tile} if isinstance(image, ImageFile) else set()
    if image.mode in ("RGB", "RGBA") and raw_modes and raw_modes <= SWAPPED_BYTES.keys():
        high = _decode(image, upright)
        file.seek(0)
        with open_picture(file) as again:
            assert isinstance(again, ImageFile)
            again.tile = [_with_raw_mode(tile, SWAPPED_BYTES[_raw_mode(tile)]) for tile in again.tile]
            low = _decode(again, upright)
        return np.left_shift(high, 8, dtype=np.uint16) | low.astype(np.uint16), "; ".join(notes)
    if any(";16" in mode for mode in raw_modes) and image.mode in ("RGB", "RGBA"):
        notes.append("16-bit values were read with 8 bits")
    array = _decode(image, upright)
    if raw_modes == {"I;12"}:  # 12 bits, which Pillow leaves at 0 to 4095
        array = np.linspace(0, 65535, 4096).round().astype(np.uint16)[array]
    return array, "; ".join(notes)


def _raw_mode(tile: Any) -> str:
    """Return how the pixels of a part of a file lie there, in Pillow's words."""
    return str(tile.args[0] if isinstance(tile.args, tuple) else tile.args)


def _with_raw_mode(tile: Any, raw_mode: str) -> Any:
    return tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)


def _decode(image: Image.Image, upright: bool) -> Array:
    """Return a Pillow image as an array of at most four channels."""
    before = _orientation(image)
    image.load()  # Pillow turns TIFF files upright itself, and says so only then
    orientation = _orientation(image)
    transparent = image.has_transparency_data
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        array: Array = np.asarray(image)
        if image.mode == "I":  # whole numbers: 16-bit values in 32 bits, as older tools hold them
            if array.size and (array.min() < 0 or array.max() > 65535):
                raise ImageError(
                    f"its 32-bit values, {array.min()} to {array.max()}, have no defined range: "
                    "scale them to 0 to 65535, or to floats in [0, 1]"
                )
            array = array.astype(np.uint16)
        array = array.astype(array.dtype.newbyteorder("="))
    elif image.mode in ("1", "L"):
        array = np.asarray(image.convert("LA" if transparent else "L"))
    elif image.mode in ("LA", "La"):
        array = np.asarray(image.convert("LA"))
    else:
        array = np.asarray(image.convert("RGBA" if transparent else "RGB"))
    return _upright(array, orientation) if upright else _as_stored(array, before=before, after=orientation)


def _orientation(image: Image.Image) -> int:
    orientation = image.getexif().get(ORIENTATION_TAG, 1)
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _upright(array: Array, orientation: int) -> Array:
    """Turn and mirror rows and columns as EXIF's orientation, 1 to 8, says."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _as_stored(array: Array, *, before: int, after: int) -> Array:
    """Turn an array back if Pillow has turned it: the image's orientation was another one before it was loaded."""
    return array if before == after else _upright(array, _BACK.get(before, before))


# --- values -----------------------------------------------------------------------------------------------------


def _unit_range(array: Array, channels: int) -> tuple[Tensor, Tensor]:
    """Do what `unit_range` does for a whole image, of which something must be valid."""
    values, valid = unit_range(array, channels)
    if not bool(valid.any()):
        raise ImageError("all of its pixels are transparent or missing")
    return values, valid


def unit_range(array: Array, channels: int, *, value_range: tuple[float, float] | None = None) -> tuple[Tensor, Tensor]:
    """Scale an image, or some of its rows, to [0, 1].

    Args:
        array: (H, W) or (H, W, C), as `read_pixels` takes it, or of any numbers with a `value_range`.
        channels: Channels of the result. Gray is repeated; colour becomes gray for a single one.
        value_range: The values that become 0 and 1; by default what the type says.

    Returns:
        (H, W, `channels`) float32 values, 0 where not valid, and (H, W) booleans, true where they are valid.

    Raises:
        ImageError: The values have no defined range, or the channels do not fit.
    """
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or 0 in array.shape:
        raise ImageError(f"expected an array of shape (height, width) or (height, width, channels), got {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ImageError(f"values of type {array.dtype} are no real numbers")
    # a copy, as the caller keeps the array, and rows may run backwards
    values = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    scale = FULL_SCALE.get(array.dtype.kind + str(array.dtype.itemsize))
    if value_range is not None:
        values.sub_(value_range[0]).div_(value_range[1] - value_range[0])
    elif scale is not None:
        values.div_(scale)
    elif array.dtype.kind == "f":
        low, high = (float(extreme) for extreme in values.nan_to_num(0, posinf=torch.inf, neginf=-torch.inf).aminmax())
        if low < 0 or high > 1:
            raise ImageError(
                f"its floating-point values, {low:g} to {high:g}, have no defined range: scale them to [0, 1]"
            )
    else:
        raise ImageError(f"values of type {array.dtype} have no defined range: scale them to floats in [0, 1]")
    values, valid = _fit_channels(values, channels)
    if not bool(valid.all()):
        values = torch.where(valid[..., None], values, 0)
    return values, valid


def _fit_channels(values: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Return (H, W, `channels`) values, and (H, W) booleans, false at opacity 0 and at NaN."""
    valid = ~values.isnan().any(dim=-1)
    stored = values.shape[-1]
    if stored == channels:
        return values, valid
    if stored in (2, 4):
        valid &= values[..., -1] > 0
        values = values[..., :-1]
    if values.shape[-1] == 3 and channels == 1:
        return (values @ values.new_tensor(LUMA))[..., None], valid
    if values.shape[-1] == 1:
        return values.repeat(1, 1, channels), valid
    if values.shape[-1] != channels:
        raise ImageError(
            f"it has {stored} channels, and the model takes {channels} (arrays are height, width, channels)"
        )
    return values, valid


def _shrink(values: Tensor, valid: Tensor, max_side: int | None) -> tuple[Tensor, Tensor]:
    """Shrink so that the longer side has at most `max_side` pixels: bicubic, or bilinear around missing pixels."""
    height, width = valid.shape
    if max_side is None or max(height, width) <= max_side:
        return values, valid
    size = tuple(max(1, round(side * max_side / max(height, width))) for side in (height, width))
    maps = values.permute(2, 0, 1)[None]  # (1, C, H, W)
    if bool(valid.all()):
        small = F.interpolate(maps, size, mode="bicubic", antialias=True).clamp_(0, 1)
        return small[0].permute(1, 2, 0), valid.new_ones(size)
    share = F.interpolate(valid[None, None].float(), size, mode="bilinear", antialias=True)
    small = F.interpolate(maps, size, mode="bilinear", antialias=True) / share.clamp(min=1e-6)
    kept = share[0, 0] >= 0.5
    kept = kept if bool(kept.any()) else share[0, 0] == share.max()
    return torch.where(kept[..., None], small[0].permute(1, 2, 0).clamp(0, 1), 0), kept
