"""Tissue on the glass of a slide: what is bare glass counts as missing.

Glass is white or gray, and stains have colour: where the saturation of a small picture of the slide is above a
threshold, there is tissue. The threshold is the one that parts the pixels best (Otsu, IEEE Transactions on Systems,
Man, and Cybernetics 9(1), 1979), within bounds, as a slide may be all glass or all tissue.

H×W picture
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from vision_longformer.images.open import open_reader
from vision_longformer.images.reader import ImageError, Mask, PixelRows, Reader, Window, read_window
from vision_longformer.images.scale import MOST_LEVELS, ScaledReader
from vision_longformer.images.values import to_unit

SIDE = 1024  # pixels of the picture's longer side
BAND_PIXELS = 2**22  # of the slide that are read at once
LEAST_SATURATION, MOST_SATURATION = 0.05, 0.2
DARKEST = 0.1  # of white; shadows and the edges of a slide have no colour that could be told
SMOOTHING = 1.0  # pixels of the picture, standard deviation
SMALLEST = 5e-5  # share of the picture below which specks of tissue, and holes in it, are none
MISSING = "telling tissue from glass needs scikit-image: pip install 'vision-longformer[slides]'"


class TissueReader:
    """Reads another reader's image, of which bare glass is not valid.

    Args:
        reader: The image.
        tissue: Returns where tissue is in a picture of all of it, of any size; called when pixels are first read.
    """

    def __init__(self, reader: Reader, tissue: Callable[[], Mask]) -> None:
        self._reader, self._tissue, self.info = reader, functools.cache(tissue), reader.info

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        """Return rows `top` to `bottom`. See `Reader`."""
        return self._without_glass(self._reader.read_rows(top, bottom), Window(top, 0, bottom - top, self.info.width))

    def read_window(self, window: Window) -> PixelRows:
        """Return a part of the image. See `reader.read_window`."""
        return self._without_glass(read_window(self._reader, window), window)

    def _without_glass(self, rows: PixelRows, window: Window) -> PixelRows:
        tissue = self._tissue()
        down = _places(window.top, window.bottom, self.info.height, tissue.shape[0])
        across = _places(window.left, window.right, self.info.width, tissue.shape[1])
        seen: Mask = tissue[down[:, None], across]
        if rows.valid is not None:
            seen = rows.valid & (seen if rows.valid.ndim == 2 else seen[..., None])
        return PixelRows(rows.values, None if seen.all() else seen)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def tissue_in(values: torch.Tensor, valid: torch.Tensor) -> Mask:
    """Return where a picture shows tissue.

    Args:
        values: (H, W, 3) RGB in [0, 1].
        valid: (H, W) booleans, false where pixels are missing.

    Raises:
        ImportError: scikit-image is not installed.
    """
    try:
        from skimage.filters import gaussian, threshold_otsu
        from skimage.morphology import dilation, disk, remove_small_holes, remove_small_objects
    except ImportError as error:
        raise ImportError(MISSING) from error
    high, low = values.amax(dim=2), values.amin(dim=2)
    seen = valid & (high > DARKEST)
    saturation = torch.where(seen, (high - low) / high.clamp(min=DARKEST), 0).numpy()
    smooth = gaussian(saturation, SMOOTHING)
    there = valid.numpy()
    threshold = float(np.clip(threshold_otsu(smooth[there]), LEAST_SATURATION, MOST_SATURATION)) if there.any() else 1.0
    smallest = round(SMALLEST * smooth.size)
    tissue = remove_small_objects(smooth > threshold, max_size=smallest)
    tissue = remove_small_holes(tissue, max_size=smallest)
    return np.asarray(dilation(tissue, disk(1)) & there)


@functools.lru_cache(maxsize=64)  # of a megabyte at most; windows of a slide are read by new readers
def tissue_of(
    path: str,
    _identity: str,
    *,
    value_range: tuple[float, float] | None = None,
    array: str | None = None,
    upright: bool = True,
) -> Mask:
    """Return where an image shows tissue, in a picture whose longer side is `SIDE` at most.

    The coarsest level that is not smaller is read, by rows.

    Args:
        path: Of the file, or its URL.
        _identity: Changes when the file does.
        value_range: See `Reading`.
        array: See `open_reader`, as for what follows.
        upright: Whether it is turned.

    Raises:
        ImageError: It cannot be read, has no colours, or shows no tissue.
        ImportError: scikit-image is not installed.
    """

    def opened(level: int) -> Reader:
        return open_reader(path, level=level, value_range=value_range, array=array, upright=upright)

    with contextlib.closing(_overview(opened)) as reader:
        info = reader.info
        if info.channels != 3 and not (info.channels == 4 and info.opacity):
            raise ImageError(
                f"{path}: tissue is told from glass by colour, and it has {info.channels} channels, not RGB"
            )
        bands = list(_bands(reader))
    tissue = tissue_in(torch.cat([values for values, _ in bands]), torch.cat([valid for _, valid in bands]))
    if not tissue.any():
        raise ImageError(f"{path}: no tissue was found in it; without --tissue all of it is taken")
    return tissue


def _overview(opened: Callable[[int], Reader]) -> ScaledReader:
    """Return the coarsest level of an image whose longer side is not below `SIDE`, shrunk to that."""
    chosen = opened(0)
    for level in range(1, MOST_LEVELS):
        try:
            coarser = opened(level)
        except ImageError:
            break  # there is none
        if max(coarser.info.size) < SIDE:
            coarser.close()
            break
        chosen.close()
        chosen = coarser
    factor = max(1.0, max(chosen.info.size) / SIDE)
    return ScaledReader(chosen, (factor, factor), downsample=(factor, factor))


def _bands(reader: ScaledReader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    height, width = reader.info.size
    down, across = reader.info.downsample
    step = max(1, int(BAND_PIXELS / (width * across * down)))
    for top in range(0, height, step):
        yield to_unit(reader.info, reader.read_rows(top, min(top + step, height)), 3)


def _places(start: int, end: int, size: int, picture: int) -> NDArray[np.int64]:
    """Return, for pixels `start` to `end` of an axis of `size`, the pixels of the picture under their centres."""
    return np.minimum(((np.arange(start, end) + 0.5) * (picture / size)).astype(np.int64), picture - 1)
