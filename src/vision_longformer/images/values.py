"""Stored values as a model takes them: of any bits and range, in [0, 1], with the channels that it wants.

H×W image, n rows, C channels. Colour is RGB, as stored: colour profiles are not applied.

Transparency: colours are taken as stored, whatever their opacity, and a pixel of opacity 0 is not valid. NaN says
that a pixel is missing, and makes it not valid too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_longformer.images.reader import Array, ImageError, ImageInfo, PixelRows, Reader

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow turns colour into gray
FULL_SCALE = {"b1": 1, "u1": 255, "u2": 65535}  # by NumPy's kind and bytes of a value


def full_depth(values: Array, bits: int, *, white_is_zero: bool = False) -> Array:
    """Spread unsigned values of a few bits over all bits of their type, so that the largest stays the largest.

    Args:
        values: Of any shape; booleans, other numbers and those of more than 16 bits stay as they are.
        bits: That a value uses.
        white_is_zero: Whether the smallest value is white, and becomes the largest.

    Raises:
        ImageError: White is zero, and the values are no unsigned numbers.
    """
    if values.dtype.kind == "u" and bits < 8 * values.dtype.itemsize <= 16:
        levels = np.linspace(0, 2 ** (8 * values.dtype.itemsize) - 1, 2**bits).round().astype(values.dtype)
        values = levels[np.minimum(values, 2**bits - 1)]
    if not white_is_zero:
        return values
    if values.dtype.kind not in "bu":
        raise ImageError(f"zero is white in it, which is not read for values of type {values.dtype}")
    return np.invert(values)


def straight_colours(values: NDArray[Any]) -> Array:
    """Return (n, W, C) values whose last channel is opacity, and whose others were multiplied by it, without that.

    Whole numbers are rounded to the nearest; where opacity is 0, all are.
    """
    colours, opacity = values[..., :-1], values[..., -1:]
    most = 1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
    shares = np.divide(colours, opacity, out=np.zeros(colours.shape), where=opacity > 0)
    if values.dtype.kind != "f":
        shares = (np.minimum(shares, 1) * most).round()
    return np.concatenate([shares.astype(values.dtype), opacity], axis=2)


def through_table(indices: Array, colours: Array) -> Array:
    """Return the (n, W, C) colours of (n, W) indices into an (N, C) table; larger ones take its last entry."""
    found: Array = colours[np.minimum(indices, len(colours) - 1)]
    return found


def unit_rows(reader: Reader, top: int, bottom: int, channels: int) -> tuple[Tensor, Tensor]:
    """Read rows `top` to `bottom`, and scale them to [0, 1].

    Returns:
        (n, W, `channels`) float32 values, 0 where not valid, and (n, W) booleans, false where a pixel is missing.

    Raises:
        ImageError: They cannot be read, or the image's channels do not fit.
    """
    return to_unit(reader.info, reader.read_rows(top, bottom), channels)


def to_unit(info: ImageInfo, rows: PixelRows, channels: int) -> tuple[Tensor, Tensor]:
    """Scale rows that were read from an image. See `unit_rows`."""
    check_channels(info, channels)
    stored, seen = rows.values, rows.seen
    if seen is not None and not seen.all():
        stored = np.where(seen[..., None], stored, np.zeros((), stored.dtype))  # it may be out of range
    try:
        values, valid = unit_range(stored, channels, value_range=info.value_range)
    except ImageError as error:
        raise ImageError(f"{info.name}: {error}") from error
    if seen is not None:
        valid &= torch.from_numpy(np.ascontiguousarray(seen))
        values = torch.where(valid[..., None], values, 0)
    return values, valid


def check_channels(info: ImageInfo, channels: int) -> None:
    """Raise `ImageError` if an image has two or four channels, none of which is opacity, and a model takes others."""
    if not info.opacity and info.channels in (2, 4) and info.channels != channels:
        raise ImageError(
            f"{info.name}: it has {info.channels} channels, none of which is opacity, and the model takes "
            f"{channels}: choose some with --channels (channels in Python)"
        )


def check_fits(info: ImageInfo, channels: int) -> None:
    """Raise `ImageError` if a model of so many channels cannot take an image, by what is known before it is read."""
    check_channels(info, channels)
    kind = info.dtype.kind + str(info.dtype.itemsize)
    if info.value_range is None and info.dtype.kind in "biu" and kind not in FULL_SCALE:
        raise ImageError(
            f"{info.name}: values of type {info.dtype} have no defined range: say which become black and white with "
            "--value-range (value_range in Python)"
        )
    colours = info.channels - (info.opacity and info.channels in (2, 4))
    if info.channels != channels and colours not in (1, channels) and (colours, channels) != (3, 1):
        raise ImageError(
            f"{info.name}: it has {info.channels} channels, and the model takes {channels}: choose some with "
            "--channels (channels in Python)"
        )


def unit_range(array: Array, channels: int, *, value_range: tuple[float, float] | None = None) -> tuple[Tensor, Tensor]:
    """Scale an image, or some of its rows, to [0, 1].

    Args:
        array: (H, W, C) booleans, uint8, uint16, or floats in [0, 1]; any numbers with a `value_range`.
        channels: Channels of the result. Gray is repeated; colour becomes gray for a single one.
        value_range: The values that become 0 and 1; by default what the type says.

    Returns:
        (H, W, `channels`) float32 values, 0 where not valid, and (H, W) booleans, true where they are valid.

    Raises:
        ImageError: The values have no defined range, or the channels do not fit.
    """
    if array.dtype.kind not in "biuf":
        raise ImageError(f"values of type {array.dtype} are no real numbers")
    # a copy, as the caller keeps the array, and rows may run backwards
    with np.errstate(over="ignore"):  # what is too large for float32 is out of range, and refused as such
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
        raise ImageError(
            f"values of type {array.dtype} have no defined range: say which become black and white with --value-range "
            "(value_range in Python), or scale them to floats in [0, 1]"
        )
    valid = torch.ones(values.shape[:2], dtype=torch.bool)
    if array.dtype.kind == "f":
        valid = ~values.isnan().any(dim=-1)
    values, valid = _fit_channels(values, valid, channels)
    if not bool(valid.all()):
        values = torch.where(valid[..., None], values, 0)
    return values, valid


def _fit_channels(values: Tensor, valid: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Return (H, W, `channels`) values, and the (H, W) booleans `valid`, false at opacity 0 too."""
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
