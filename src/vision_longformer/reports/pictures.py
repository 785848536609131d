"""Pictures for pages: photographs and layers over them, none larger than its page can bear."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision_longformer.images import ImageError, Raster, as_rgb
from vision_longformer.images.thumbnails import Picture
from vision_longformer.masks.rle import nearest
from vision_longformer.prediction.colours import Colour

SMALLER = 0.7  # a file that is too large is shrunk by this, and again if it needs be
UNBOUNDED = 2**40


def read_photo(read: Callable[[], Raster], *, side: int) -> Image.Image | None:
    """Return an image to look at whose longer side is at most `side`; None if it cannot be read any more."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about odd but readable files
            photo = as_rgb(read())
    except ImageError:
        return None
    photo.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return photo


def encode(image: Image.Image, kind: Literal["jpeg", "png"] = "jpeg", *, max_bytes: int = UNBOUNDED) -> Picture:
    """Encode an image; one that would take more than `max_bytes` is shrunk until it does not."""
    while True:
        buffer = io.BytesIO()
        if kind == "jpeg":
            image.save(buffer, "JPEG", quality=80)
        else:
            image.save(buffer, "PNG", optimize=True)
        if buffer.tell() <= max_bytes or min(image.size) < 16:
            return Picture(base64.b64encode(buffer.getvalue()).decode(), kind, image.width, image.height)
        smaller = (int(image.width * SMALLER), int(image.height * SMALLER))
        method = Image.Resampling.NEAREST if image.mode == "P" else Image.Resampling.BOX
        image = image.resize(smaller, method)


def shrink_map(values: NDArray[np.generic], size: tuple[int, int]) -> NDArray[np.generic]:
    """Return an (H, W) map at (height, width) `size`: the value under the centre of each pixel."""
    rows, columns = (nearest(old, new) for old, new in zip(values.shape, size, strict=True))
    return values[np.ix_(rows, columns)]


def paint(values: NDArray[np.generic], colours: Sequence[Colour]) -> Image.Image:
    """Return an (H, W) map of numbers as an image of so many colours."""
    if len(colours) > 256:
        return Image.fromarray(np.array(colours, np.uint8)[values.astype(np.int64)])
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def mask_layer(masks: NDArray[np.bool_], colour: Colour, *, filled: bool) -> Image.Image:
    """Return (n, H, W) masks as an image to lay over a photograph: their edges, and a shade within if `filled`."""
    edge = np.zeros(masks.shape[1:], bool)
    for mask in masks:
        edge |= mask & ~_inner(mask)
    layer = paint(np.where(edge, 2, masks.any(axis=0) & filled), [colour] * 3)
    layer.info["transparency"] = bytes((0, 90, 255))
    return layer


def error_picture(photo: Image.Image, wrong: NDArray[np.bool_], colour: Colour) -> Image.Image:
    """Return a photograph in faint gray with the wrong pixels in a colour."""
    gray = np.asarray(photo.convert("L"), np.uint8)[..., None].repeat(3, axis=2)
    faint = 160 + gray.astype(np.int64) * 95 // 255
    return Image.fromarray(np.where(wrong[..., None], np.array(colour), faint).astype(np.uint8))


def _inner(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a mask that lie two pixels within it."""
    for _ in range(2):
        framed = np.pad(mask, 1)
        mask = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:] & mask
    return mask
