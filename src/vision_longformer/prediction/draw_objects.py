"""Found objects drawn on their image: boxes, masks, and labels with class and score.

n objects, H×W image. Lines and text grow with the image, so that a picture shrunk to a screen stays legible.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.masks import run_lengths
from vision_longformer.masks.rle import Mask, Rle
from vision_longformer.prediction.colours import BLACK, Colour, class_colour, text_colour

LINES_OF_SIDE = 300  # a line is so many times thinner than the image's shorter side
TEXT_OF_SIDE = 45
SMALLEST_TEXT, LARGEST_TEXT = 11, 120  # pixels
MASK_OPACITY = 0.4
CROWDED = 4.0  # a label needs a box at least a quarter as wide as itself


def select(
    found: FoundObjects, *, min_score: float = 0.0, classes: Collection[int] | None = None, most: int | None = None
) -> FoundObjects:
    """Return the objects of a least score and of some classes, best first.

    Args:
        found: n objects.
        min_score: From 0 to 1.
        classes: Class numbers; None keeps all.
        most: How many at most; None keeps all.
    """
    wanted = found.scores >= min_score
    if classes is not None:
        wanted &= np.isin(found.labels, list(classes))
    chosen = np.flatnonzero(wanted)
    chosen = chosen[np.argsort(-found.scores[chosen], kind="stable")][:most]
    masks = None if found.masks is None else [found.masks[number] for number in chosen.tolist()]
    return FoundObjects(found.boxes[chosen], found.scores[chosen], found.labels[chosen], masks)


def draw_objects(
    image: Image.Image, found: FoundObjects, *, classes: Sequence[str] | None = None, labels: bool = True
) -> Image.Image:
    """Return a copy of an image with objects on it, the best on top; filter them with `select` first.

    Args:
        image: Of (H, W) pixels.
        found: Objects in its pixels; masks have its size.
        classes: Names of the classes; their numbers by default.
        labels: Write class and score beside each object. Where one would hide a smaller object, or another label, it
            is left out.

    Raises:
        ValueError: A mask has another size than the image.
    """
    size = (image.height, image.width)
    pixels = np.array(image.convert("RGB"))
    worst_first = np.argsort(found.scores, kind="stable").tolist()
    if found.masks is not None:
        for number in worst_first:
            _tint(pixels, found.masks[number], class_colour(int(found.labels[number])), size)
    drawn = Image.fromarray(pixels)
    draw = ImageDraw.Draw(drawn)
    line, font = _scale(size)
    if found.masks is not None:
        line = max(1, line // 2)  # the outline of the mask says more
    for number in worst_first:
        _frame(draw, found.boxes[number], class_colour(int(found.labels[number])), line)
    if labels:
        taken: list[tuple[float, float, float, float]] = []
        for number in reversed(worst_first):
            label = int(found.labels[number])
            name = str(label) if classes is None else classes[label]
            text = f"{name} {found.scores[number]:.2f}"
            _label(draw, found.boxes[number], text, class_colour(label), font, size, taken)
    return drawn


def font_of(size: tuple[int, int]) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font, which needs no file, as large as an image of (height, width) asks for."""
    return _scale(size)[1]


def _scale(size: tuple[int, int]) -> tuple[int, ImageFont.FreeTypeFont | ImageFont.ImageFont]:
    side = min(size)
    pixels = min(max(side / TEXT_OF_SIDE, SMALLEST_TEXT), LARGEST_TEXT)
    return max(2, round(side / LINES_OF_SIDE)), ImageFont.load_default(pixels)


def _tint(pixels: NDArray[np.uint8], rle: Rle, colour: Colour, size: tuple[int, int]) -> None:
    """Mix a colour into what a mask covers, and draw its outline; only its own part of the image is touched."""
    if tuple(rle["size"]) != size:
        raise ValueError(
            f"masks: one has the size {rle['size'][0]}×{rle['size'][1]} (height×width), and the image "
            f"{size[0]}×{size[1]}"
        )
    mask, (top, left) = _crop(rle)
    if not mask.size:
        return
    part = pixels[top : top + mask.shape[0], left : left + mask.shape[1]]
    mixed = (1 - MASK_OPACITY) * part[mask] + MASK_OPACITY * np.array(colour)
    part[mask] = mixed.round().astype(np.uint8)
    part[mask & ~_eroded(mask)] = colour


def _crop(rle: Rle) -> tuple[Mask, tuple[int, int]]:
    """Return the columns of a mask that are not empty, cut to its rows, and the (row, column) of the first pixel."""
    height, width = rle["size"]
    runs = run_lengths.checked(run_lengths.decode(rle["counts"]), size=(height, width)).astype(np.int64)
    ends = np.cumsum(runs)
    starts, stops = ends[:-1:2], ends[1::2]
    if not len(stops):
        return np.zeros((0, 0), bool), (0, 0)
    left, right = int(starts[0]) // height, (int(stops[-1]) - 1) // height + 1
    columns = np.zeros((right - left) * height, bool)
    for start, stop in zip(starts - left * height, stops - left * height, strict=True):
        columns[start:stop] = True
    mask = columns.reshape(right - left, height).T
    rows = np.flatnonzero(mask.any(axis=1))
    return mask[rows[0] : rows[-1] + 1], (int(rows[0]), left)


def _eroded(mask: Mask) -> Mask:
    """Return the pixels of a mask whose four neighbours belong to it too."""
    padded = np.pad(mask, 1)
    return np.asarray(padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])


def _frame(draw: ImageDraw.ImageDraw, box: NDArray[np.floating], colour: Colour, line: int) -> None:
    """Draw a box with a thin dark rim around it, so that it shows on light ground as on dark."""
    x1, y1, x2, y2 = (float(edge) for edge in box)
    x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)
    rim = max(1, line // 3)
    if line > 1:
        draw.rectangle((x1 - rim, y1 - rim, x2 + rim, y2 + rim), outline=BLACK, width=rim)
    draw.rectangle((x1, y1, x2, y2), outline=colour, width=line)


def _label(
    draw: ImageDraw.ImageDraw,
    box: NDArray[np.floating],
    text: str,
    colour: Colour,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> None:
    """Write a label above a box, else inside it at its top, else below it; nowhere if other labels are there."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    pad = max(1, round((bottom - top) / 5))
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x1, y1, x2, y2 = (float(edge) for edge in box)
    if x2 - x1 < width / CROWDED:
        return
    x = max(0.0, min(x1, size[1] - width))
    for y in (y1 - height, y1, y2 - height, y2):
        place = (x, y, x + width, y + height)
        if y < 0 or y + height > size[0] or any(_meet(place, other) for other in taken):
            continue
        taken.append(place)
        draw.rectangle(place, fill=colour)
        draw.text((x + pad - left, y + pad - top), text, fill=text_colour(colour), font=font)
        return


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
