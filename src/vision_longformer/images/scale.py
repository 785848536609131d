"""Images at a stated scale: the next finer level of a pyramid, resampled by rows with antialiasing.

H×W image, n rows, w columns, C channels. Pixel i of the result has its centre at (i + ½)·f of the level, f being the
exact ratio of the scales, and not that of the rounded sizes. Its value is the mean of the level's pixels around it,
with weights that fall linearly to 0 at a distance of f (of 1 where it is enlarged): bilinear with antialiasing, as
Pillow and PyTorch have it. Sums are taken in the same order whatever rows are asked for, so that results do not depend
on that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision_longformer.images.geotiff import scaled_georeference
from vision_longformer.images.pixel_size import read_magnification, read_pixel_size
from vision_longformer.images.reader import ImageError, PixelRows, Reader, Window, read_window

MOST_LEVELS = 32
CLOSE = 1e-3  # a level that is coarser by less is fine enough
FINEST = 0.5  # enlarging more than twice would show nothing new
Weights = NDArray[np.float32]


def open_at_scale(
    path: Path, opened: Callable[[int], Reader], *, mpp: float | None, magnification: float | None
) -> ScaledReader:
    """Open an image at a stated scale.

    Args:
        path: Of the file.
        opened: Opens a level of it.
        mpp: Micrometres a pixel.
        magnification: In place of it, the power of the objective of a microscope.

    Raises:
        ImageError: The file does not say its own scale, or is much coarser.
    """
    pixel = read_pixel_size(path)
    if magnification is not None:
        power = read_magnification(path)
        if power is None:
            raise ImageError(f"{path}: it does not say at which magnification it was taken: give --mpp or --level")
        wanted = (power / magnification, power / magnification)
        own = None if pixel is None else (pixel[0] * wanted[0], pixel[1] * wanted[1])
    else:
        assert mpp is not None
        if pixel is None:
            raise ImageError(f"{path}: it does not say how large its pixels are: give --level")
        wanted, own = (mpp / pixel[0], mpp / pixel[1]), (mpp, mpp)
    if min(wanted) < FINEST:
        raise ImageError(f"{path}: it would have to be enlarged {1 / min(wanted):.3g} times for this scale")
    chosen = opened(0)
    full = chosen.info.size
    factors = wanted
    for number in range(1, MOST_LEVELS):
        try:
            coarser = opened(number)
        except ImageError:
            break  # there is none
        ratios = full[0] / coarser.info.height, full[1] / coarser.info.width
        left = wanted[0] / ratios[0], wanted[1] / ratios[1]
        if min(left) < 1 - CLOSE:
            coarser.close()
            break
        chosen.close()
        chosen, factors = coarser, left
    return ScaledReader(chosen, factors, downsample=wanted, full_size=full, pixel_size=own)


class ScaledReader:
    """Reads another reader's image with larger pixels. A pixel is there if at least half of what it covers is.

    Args:
        reader: The image.
        factors: By how much pixels become higher and wider.
        downsample: See `ImageInfo`.
        full_size: Likewise.
        pixel_size: (height, width) of a larger pixel in micrometres; see `ImageInfo`.
    """

    def __init__(
        self,
        reader: Reader,
        factors: tuple[float, float],
        *,
        downsample: tuple[float, float] = (1.0, 1.0),
        full_size: tuple[int, int] | None = None,
        pixel_size: tuple[float, float] | None = None,
    ) -> None:
        info = reader.info
        # a pixel that lies in the image by less than a hair is none
        height, width = (max(1, math.ceil(side / f - 0.5)) for side, f in zip(info.size, factors, strict=True))
        self._reader, self._factors = reader, factors
        self.info = dataclasses.replace(
            info,
            height=height,
            width=width,
            preferred_rows=max(1, round(info.preferred_rows / factors[0])),
            georeference=scaled_georeference(info.georeference, factors),
            downsample=downsample,
            full_size=full_size,
            pixel_size=pixel_size,
        )

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        """Return rows `top` to `bottom`. See `Reader`."""
        return self.read_window(Window(top, 0, bottom - top, self.info.width))

    def read_window(self, window: Window) -> PixelRows:
        """Return a part of the image."""
        height, width = self._reader.info.size
        rows, row_weights = _taps(window.top, window.bottom, self._factors[0], height)
        columns, column_weights = _taps(window.left, window.right, self._factors[1], width)
        top, left = int(rows.min()), int(columns.min())
        source = Window(top, left, int(rows.max()) + 1 - top, int(columns.max()) + 1 - left)
        if source.width == width:  # its reader may keep what the rows below need too
            found = self._reader.read_rows(source.top, source.bottom)
        else:
            found = read_window(self._reader, source)
        steps = (rows - top, row_weights), (columns - left, column_weights)
        stored, seen = found.values, found.seen
        if seen is None and stored.dtype.kind != "f":
            return PixelRows(_rounded(_resampled(stored.astype(np.float32), *steps), stored.dtype))
        there = np.ones(stored.shape[:2], bool) if seen is None else np.asarray(seen)
        if stored.dtype.kind == "f":
            there = there & ~np.isnan(np.asarray(stored, np.float32)).any(axis=2)
        values = np.where(there[..., None], stored, np.zeros((), stored.dtype)).astype(np.float32)
        share = _resampled(there[..., None].astype(np.float32), *steps)
        means = _resampled(values, *steps) / np.maximum(share, np.float32(1e-6))
        valid = share[..., 0] >= 0.5
        return PixelRows(_rounded(means, stored.dtype), None if valid.all() else valid)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def _taps(start: int, end: int, factor: float, size: int) -> tuple[NDArray[np.int64], Weights]:
    """Return, for pixels `start` to `end` of an axis, the (k, n) pixels of `size` around each, and their weights."""
    reach = max(factor, 1.0)
    centres = (np.arange(start, end, dtype=np.float64) + 0.5) * factor - 0.5
    first = np.floor(centres - reach).astype(np.int64) + 1
    taps = first + np.arange(math.ceil(2 * reach))[:, None]
    weights = np.maximum(0, 1 - np.abs(taps - centres) / reach)
    weights[(taps < 0) | (taps >= size)] = 0
    return taps.clip(0, size - 1), (weights / weights.sum(axis=0)).astype(np.float32)


def _resampled(
    values: NDArray[np.float32],
    rows: tuple[NDArray[np.int64], Weights],
    columns: tuple[NDArray[np.int64], Weights],
) -> NDArray[np.float32]:
    """Return (n, w, C) means of pixels: tap by tap, so that a pixel's sum has one order."""
    across = np.zeros((values.shape[0], columns[0].shape[1], values.shape[2]), np.float32)
    for taps, weights in zip(*columns, strict=True):
        across += values[:, taps] * weights[:, None]
    result = np.zeros((rows[0].shape[1], *across.shape[1:]), np.float32)
    for taps, weights in zip(*rows, strict=True):
        result += across[taps] * weights[:, None, None]
    return result


def _rounded(values: NDArray[np.floating], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Return values in the type that they are stored in."""
    if dtype.kind == "b":
        return values >= 0.5
    return (np.rint(values) if dtype.kind in "iu" else values).astype(dtype)
