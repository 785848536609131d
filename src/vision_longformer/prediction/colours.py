"""Colours of classes that people tell apart, whatever their eyes, and text that is legible on them."""

from __future__ import annotations

import colorsys

Colour = tuple[int, int, int]

# Okabe and Ito, Color Universal Design, https://jfly.uni-koeln.de/color/: distinct for all kinds of colour vision.
# Black is left out, and blue comes late, as it is lost on dark images.
OKABE_ITO: tuple[Colour, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (240, 228, 66),  # yellow
    (0, 158, 115),  # green
    (204, 121, 167),  # purple
    (213, 94, 0),  # vermilion
    (0, 114, 178),  # blue
)
GOLDEN = 0.618034  # of a turn: hues that are never close to those before
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
BACKGROUND: Colour = (45, 48, 54)


def class_colour(number: int) -> Colour:
    """Return the colour of a class, the same in every picture; beyond seven classes they are only different."""
    if number < len(OKABE_ITO):
        return OKABE_ITO[number]
    turn = (number - len(OKABE_ITO)) * GOLDEN
    red, green, blue = colorsys.hls_to_rgb(turn % 1, (0.45, 0.6, 0.75)[number % 3], 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def pixel_class_colour(number: int) -> Colour:
    """Return the colour of a class of pixels: class 0 is the background, on which no bright colour is spent."""
    return BACKGROUND if number == 0 else class_colour(number - 1)


def text_colour(background: Colour) -> Colour:
    """Return black or white, whichever has more contrast (WCAG 2, relative luminance)."""
    linear = [(share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4) for share in _unit(background)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return BLACK if (luminance + 0.05) ** 2 > 0.05 * 1.05 else WHITE


def _unit(colour: Colour) -> list[float]:
    return [value / 255 for value in colour]
