"""The page of a search: what was found, as pictures, the best first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import ImageDraw

from vision_longformer.images import read_rgb
from vision_longformer.images.pixels import shrunk_size
from vision_longformer.images.thumbnails import Picture
from vision_longformer.reports.pages import write_page
from vision_longformer.reports.pictures import encode, read_photo

THUMBNAIL = 320  # pixels of the longer side
FRAME = "#d55e00"


@dataclass(frozen=True)
class Found:
    """Something that was found.

    Attributes:
        image: Its name.
        path: The file; None where nobody said where images are.
        box: The region: top, left, bottom, right in pixels as encoded; None means the whole image.
        similarity: At most 1.
        max_side: To which images were shrunk before they were encoded; None if they were not.
    """

    image: str
    path: Path | None
    box: tuple[int, int, int, int] | None
    similarity: float
    max_side: int | None

    def picture(self) -> Picture | None:
        """Return a small picture with the region framed; None if the image is not there or cannot be read."""
        if self.path is None or not self.path.exists():
            return None
        photo = read_rgb_or_none(self.path)
        if photo is None:
            return None
        full, small = photo
        if self.box is not None:
            encoded = shrunk_size(full, self.max_side)
            scale = small.height / encoded[0], small.width / encoded[1]
            top, left, bottom, right = (edge * scale[number % 2] for number, edge in enumerate(self.box))
            frame = (left, top, max(right - 1, left), max(bottom - 1, top))
            ImageDraw.Draw(small).rectangle(frame, outline=FRAME, width=3)
        return encode(small)


def read_rgb_or_none(path: Path) -> tuple[tuple[int, int], Any] | None:
    """Return an image's (height, width) and a small copy of it; None if it cannot be read."""
    sizes = []

    def read() -> Any:
        image = read_rgb(path)
        sizes.append((image.height, image.width))
        return image

    small = read_photo(partial(read), side=THUMBNAIL)
    return None if small is None else (sizes[0], small)


def write_search_page(target: Path, title: str, found: Sequence[Found]) -> None:
    """Write the page.

    Raises:
        OSError: The disk is full, or the place cannot be written.
    """
    shown = [(one, one.picture()) for one in found]
    write_page(target, "search.html", {"title": title, "found": shown, "without": all(p is None for _, p in shown)})
