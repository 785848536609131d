"""Classes of pixels drawn over their image, with a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from vision_longformer.prediction.colours import Colour, class_colour, text_colour
from vision_longformer.prediction.draw_objects import font_of
from vision_longformer.segmentation.tiled import Labels

OPACITY = 0.5


def draw_classes(
    image: Image.Image, labels: Labels, *, classes: Sequence[str], background: int | None = 0, legend: bool = True
) -> Image.Image:
    """Return a copy of an image in which every pixel is tinted with the colour of its class.

    Args:
        image: Of (H, W) pixels.
        labels: (H, W) class numbers; a number without a name is left as it is.
        classes: Their names.
        background: A class that is left as it is; None tints all.
        legend: Add a bar below the image with the classes that occur, and each one's share of the pixels.

    Raises:
        ValueError: Image and labels have different sizes.
    """
    if labels.shape != (image.height, image.width):
        raise ValueError(
            f"labels: have the size {labels.shape[0]}×{labels.shape[1]} (height×width), and the image "
            f"{image.height}×{image.width}"
        )
    pixels = np.array(image.convert("RGB"))
    counts = np.bincount(labels.ravel(), minlength=len(classes))[: len(classes)]
    shown = [number for number in np.flatnonzero(counts).tolist() if number != background]
    for number in shown:
        where = labels == number
        pixels[where] = ((1 - OPACITY) * pixels[where] + OPACITY * np.array(_colour(number, background))).round()
    drawn = Image.fromarray(pixels)
    if not legend or not shown:
        return drawn
    names = [f"{classes[number]} {_share(counts[number] / labels.size)}" for number in shown]
    colours = [_colour(number, background) for number in shown]
    return _with_legend(drawn, list(zip(names, colours, strict=True)))


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _colour(number: int, background: int | None) -> Colour:
    """Return a class's colour; the first one is not spent on a background that is not drawn."""
    return class_colour(number - 1 if background is not None and number > background else number)


def _with_legend(image: Image.Image, entries: Sequence[tuple[str, Colour]]) -> Image.Image:
    """Return an image with a bar below it: labels in rows, as many in each as the width takes."""
    font = font_of((image.height, image.width))
    measure = ImageDraw.Draw(image)
    _, top, _, bottom = measure.textbbox((0, 0), "Ag", font=font)
    pad = max(2, (bottom - top) // 3)
    row_height = bottom - top + 3 * pad
    places, x, row = [], pad, 0
    for text, _ in entries:
        width = int(measure.textlength(text, font=font)) + 2 * pad
        if x > pad and x + width > image.width - pad:
            x, row = pad, row + 1
        places.append((x, row, width))
        x += width + pad
    drawn = Image.new("RGB", (image.width, image.height + int((row + 1) * row_height + pad)), (24, 24, 24))
    drawn.paste(image, (0, 0))
    draw = ImageDraw.Draw(drawn)
    for (text, colour), (left, line, width) in zip(entries, places, strict=True):
        y = image.height + pad + line * row_height
        draw.rectangle((left, y, left + width, y + row_height - pad), fill=colour)
        draw.text((left + pad, y + pad - top), text, fill=text_colour(colour), font=font)
    return drawn
