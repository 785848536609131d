"""Found objects drawn on their image: outlines or boxes, shaded where they are large, and labels where there is room.

n objects, H×W image. Lines and text grow with the image, so that a picture shrunk to a screen stays legible, but a line
is never thick beside what it surrounds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.masks.rle import Mask, rle_to_crop
from vision_longformer.padding import Size
from vision_longformer.prediction.colours import BLACK, Colour, class_colour, text_colour

LINES_OF_SIDE = 300  # a line is so many times thinner than the image's shorter side
LINES_OF_OBJECT = 10  # and than the object's
TEXT_OF_SIDE = 45
SMALLEST_TEXT, LARGEST_TEXT = 11, 120  # pixels
MASK_OPACITY = 0.35
SHADED = 0.01  # of the image: what most objects must cover to be shaded; smaller ones would be solid blocks
CROWDED = 4.0  # a label needs a box at least a quarter as wide as itself
HIDDEN = 0.2  # of an object: what a label may cover
LABELLED = 0.1  # of the image: what all labels may cover together; else there are none

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Place = tuple[float, float, float, float]


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
    image: Image.Image,
    found: FoundObjects,
    *,
    classes: Sequence[str] | None = None,
    labels: bool | None = None,
    size: Size | None = None,
) -> Image.Image:
    """Return a copy of an image with objects on it, the best on top; filter them with `select` first.

    Objects with masks get their outline, others their box.

    Args:
        image: Of (H, W) pixels.
        found: Objects.
        classes: Names of the classes; their numbers by default.
        labels: Write class and score beside each object, where that hides no smaller object and no other label; None
            does so unless there are too many.
        size: (height, width) of the image that boxes and masks are of, where the picture is smaller; by default its
            own.

    Raises:
        ValueError: A mask has another size than the image.
    """
    shown = (image.height, image.width)
    factors = (1.0, 1.0) if size is None else (shown[0] / size[0], shown[1] / size[1])
    boxes = np.asarray(found.boxes, float).reshape(-1, 4) * np.array([factors[1], factors[0]] * 2)
    worst_first = np.argsort(found.scores, kind="stable").tolist()
    line, font = _scale(shown)
    pixels = np.array(image.convert("RGB"))
    if found.masks is not None:
        crops = [_scaled_crop(found, number, size or shown, factors) for number in worst_first]
        shaded = bool(crops) and float(np.median([mask.sum() for mask, _ in crops])) >= SHADED * shown[0] * shown[1]
        for number, (mask, corner) in zip(worst_first, crops, strict=True):
            _outline(pixels, mask, corner, class_colour(int(found.labels[number])), line, shaded=shaded)
    drawn = Image.fromarray(pixels)
    draw = ImageDraw.Draw(drawn)
    if found.masks is None:
        for number in worst_first:
            _frame(draw, boxes[number], class_colour(int(found.labels[number])), line)
    texts = [_text(found, number, classes) for number in range(len(boxes))]
    if labels if labels is not None else _have_room(draw, texts, font, boxes, shown):
        taken: list[Place] = []
        for number in reversed(worst_first):
            colour = class_colour(int(found.labels[number]))
            _label(draw, number, boxes, texts[number], colour, font, shown, taken)
    return drawn


def font_of(size: Size) -> Font:
    """Return Pillow's own font, which needs no file, as large as an image of (height, width) asks for."""
    return _scale(size)[1]


def _scale(size: Size) -> tuple[int, Font]:
    side = min(size)
    pixels = min(max(side / TEXT_OF_SIDE, SMALLEST_TEXT), LARGEST_TEXT)
    return max(2, round(side / LINES_OF_SIDE)), ImageFont.load_default(pixels)


def _scaled_crop(
    found: FoundObjects, number: int, size: Size, factors: tuple[float, float]
) -> tuple[Mask, tuple[int, int]]:
    """Return what an object covers of a picture, smaller by `factors`, and the (row, column) where that begins."""
    assert found.masks is not None
    rle = found.masks[number]
    if tuple(rle["size"]) != size:
        raise ValueError(
            f"masks: one has the size {rle['size'][0]}×{rle['size'][1]} (height×width), and the image "
            f"{size[0]}×{size[1]}"
        )
    mask, corner = rle_to_crop(rle)
    if factors == (1.0, 1.0):
        return mask, corner
    places, starts = [], []
    for side, start, factor in zip(mask.shape, corner, factors, strict=True):
        first, end = (round(edge * factor) for edge in (start, start + side))
        end = max(end, first + 1)
        places.append(np.clip(((np.arange(first, end) + 0.5) / factor).astype(int) - start, 0, max(side - 1, 0)))
        starts.append(first)
    return (mask[np.ix_(*places)] if mask.size else mask), (starts[0], starts[1])


def _outline(
    pixels: NDArray[np.uint8], mask: Mask, corner: tuple[int, int], colour: Colour, line: int, *, shaded: bool
) -> None:
    """Draw the outline of a mask within it, and mix a colour into the rest; only its own part of the image changes."""
    top, left = corner
    part = pixels[top : top + mask.shape[0], left : left + mask.shape[1]]
    mask = mask[: part.shape[0], : part.shape[1]]
    if not mask.size:
        return
    if shaded:
        mixed = (1 - MASK_OPACITY) * part[mask] + MASK_OPACITY * np.array(colour)
        part[mask] = mixed.round().astype(np.uint8)
    inner = mask
    for _ in range(_thickness(line // 2, mask.shape)):
        inner = _eroded(inner)
    part[mask & ~inner] = colour


def _thickness(line: int, size: Sequence[float]) -> int:
    return max(1, min(line, round(min(size) / LINES_OF_OBJECT)))


def _eroded(mask: Mask) -> Mask:
    """Return the pixels of a mask whose four neighbours belong to it too."""
    padded = np.pad(mask, 1)
    return np.asarray(mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])


def _frame(draw: ImageDraw.ImageDraw, box: NDArray[np.floating], colour: Colour, line: int) -> None:
    """Draw a box with a thin dark rim around it, so that it shows on light ground as on dark."""
    x1, y1, x2, y2 = (float(edge) for edge in box)
    x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)
    line = _thickness(line, (x2 - x1, y2 - y1))
    rim = max(1, line // 3)
    if line > 1:
        draw.rectangle((x1 - rim, y1 - rim, x2 + rim, y2 + rim), outline=BLACK, width=rim)
    draw.rectangle((x1, y1, x2, y2), outline=colour, width=line)


def _text(found: FoundObjects, number: int, classes: Sequence[str] | None) -> str:
    label = int(found.labels[number])
    return f"{label if classes is None else classes[label]} {found.scores[number]:.2f}"


def _have_room(
    draw: ImageDraw.ImageDraw, texts: Sequence[str], font: Font, boxes: NDArray[np.floating], size: Size
) -> bool:
    """Return whether labels leave most of the image free, and most objects are wide enough for theirs."""
    if not texts:
        return False
    sizes = np.array([draw.textbbox((0, 0), text, font=font) for text in texts], float)
    widths, heights = sizes[:, 2] - sizes[:, 0], sizes[:, 3] - sizes[:, 1]
    wide_enough = np.median((boxes[:, 2] - boxes[:, 0]) / widths) >= 1 / CROWDED
    return bool(wide_enough and np.sum(widths * heights) <= LABELLED * size[0] * size[1])


def _label(
    draw: ImageDraw.ImageDraw,
    number: int,
    boxes: NDArray[np.floating],
    text: str,
    colour: Colour,
    font: Font,
    size: Size,
    taken: list[Place],
) -> None:
    """Write a label above a box, else inside it, else below it; nowhere if it would hide an object or a label."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    pad = max(1, round((bottom - top) / 5))
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x1, y1, x2, y2 = (float(edge) for edge in boxes[number])
    if x2 - x1 < width / CROWDED:
        return
    x = max(0.0, min(x1, size[1] - width))
    for y in (y1 - height, y1, y2 - height, y2):
        place = (x, y, x + width, y + height)
        if y < 0 or y + height > size[0] or any(_meet(place, other) for other in taken) or _hides(place, boxes):
            continue
        taken.append(place)
        draw.rectangle(place, fill=colour)
        draw.text((x + pad - left, y + pad - top), text, fill=text_colour(colour), font=font)
        return


def _hides(place: Place, boxes: NDArray[np.floating]) -> bool:
    """Return whether a label covers more than a little of an object."""
    sides = np.maximum(0, np.minimum(boxes[:, 2:], place[2:]) - np.maximum(boxes[:, :2], place[:2]))
    return bool((sides.prod(axis=1) > HIDDEN * (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)).any())


def _meet(one: Place, other: Place) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
