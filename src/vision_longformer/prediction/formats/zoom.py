"""A large image with what was found on it, to zoom into: a folder with a page that needs no server.

Tiles of JPEG, `LEVEL/COLUMN_ROW.jpg`, each level half of the one above it. The image is read once, band by band, and
what was found is drawn on each level anew, so that outlines are as thin everywhere.

n rows, H×W image, h×w level
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vision_longformer.images import unit_rows
from vision_longformer.images.thumbnails import NEUTRAL
from vision_longformer.masks.rle import nearest
from vision_longformer.prediction.draw_segmentation import draw_classes
from vision_longformer.prediction.results import ObjectsResult, RegionsResult, SemanticResult

TILE = 512  # pixels of a side
QUALITY = 85
THICK = 12  # pixels of an object from which on its outline is two pixels wide
VIEWER = "explore/static/vendor/openseadragon.min.js"
Rows = NDArray[np.uint8]
Paint = Callable[[Image.Image, int, float], Image.Image]  # of a band, its first row, and pixels in a pixel of it


def write_zoom(folder: Path, result: RegionsResult) -> None:
    """Write tiles and page into an empty folder.

    Raises:
        ImageError: The image cannot be read.
        OSError: Something cannot be written.
    """
    height, width = result.image.size
    last = max(0, math.ceil(math.log2(max(height, width) / TILE)))
    paint = _paint_objects(result) if isinstance(result, ObjectsResult) else _paint_classes(result)
    level: _Level | None = None
    for number in range(last + 1):
        factor = 2 ** (last - number)
        level = _Level(folder / str(number), -(-height // factor), factor, paint, level)
    assert level is not None
    with contextlib.closing(result.reader()) as reader:
        channels = 3 if reader.info.channels in (1, 2, 3, 4) and reader.info.opacity else reader.info.channels
        for top in range(0, height, TILE):
            values, valid = unit_rows(reader, top, min(top + TILE, height), channels)
            colours = values if channels == 3 else values[..., :1].expand(-1, -1, 3)
            shown = torch.where(valid[..., None], (colours * 255).clamp(0, 255), NEUTRAL)
            level.add(shown.round().to(torch.uint8).numpy())
    package = files("vision_longformer")
    (folder / "openseadragon.js").write_bytes(package.joinpath(VIEWER).read_bytes())
    about = {"name": result.image.name, "width": width, "height": height, "tile": TILE, "last": last}
    about["legend"] = _legend(result)
    page = package.joinpath("prediction/formats/zoom.html").read_text(encoding="utf-8")
    text = json.dumps(about).replace("<", "\\u003c")  # a name may end a script
    (folder / "index.html").write_text(page.replace("{about}", text), encoding="utf-8")


class _Level:
    """Takes rows from top to bottom, and writes them as tiles."""

    def __init__(self, folder: Path, height: int, factor: int, paint: Paint, below: _Level | None) -> None:
        self._folder, self._height, self._factor, self._paint, self._below = folder, height, factor, paint, below
        self._rows: list[Rows] = []
        self._top = 0
        folder.mkdir()

    def add(self, rows: Rows) -> None:
        """Add (n, w, 3) rows; n is even but for the last ones."""
        self._rows.append(rows)
        held = sum(map(len, self._rows))
        if held < TILE and self._top + held < self._height:
            return
        band, self._rows = np.concatenate(self._rows), []
        picture = self._paint(Image.fromarray(band), self._top, self._factor)
        for column in range(-(-picture.width // TILE)):
            box = (column * TILE, 0, min((column + 1) * TILE, picture.width), picture.height)
            picture.crop(box).save(self._folder / f"{column}_{self._top // TILE}.jpg", quality=QUALITY)
        self._top += len(band)
        if self._below is not None:
            self._below.add(_halved(band))


def _halved(rows: Rows) -> Rows:
    """Return means of squares of four pixels; what has none beside it is repeated."""
    height, width, _ = rows.shape
    padded = np.pad(rows, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge").astype(np.uint16)
    sums = padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]
    return ((sums + 2) // 4).astype(np.uint8)


def _paint_objects(result: ObjectsResult) -> Paint:
    rings = [[shapely.get_coordinates(ring) for ring in shapely.get_rings(own)] for own in result.polygons()]
    extents = np.array([(own[0].min(axis=0), np.max([r.max(axis=0) for r in own], axis=0)) if own else np.zeros((2, 2))
                        for own in rings]).reshape(-1, 2, 2)  # fmt: skip
    colours = [result.colour(number) for number in result.class_numbers.tolist()]

    def paint(band: Image.Image, top: int, factor: float) -> Image.Image:
        draw = ImageDraw.Draw(band)
        first, end = top * factor, (top + band.height) * factor
        near = np.flatnonzero((extents[:, 0, 1] < end) & (extents[:, 1, 1] >= first))
        for number in near[::-1].tolist():  # the best one last
            side = (extents[number, 1] - extents[number, 0]).max() / factor
            for ring in rings[number]:
                line = [(float(x), float(y)) for x, y in ring / factor - [0.5, top + 0.5]]
                draw.line(line, fill=colours[number], width=2 if side >= THICK else 1)
        return band

    return paint


def _paint_classes(result: RegionsResult) -> Paint:
    width = result.image.size[1]

    def paint(band: Image.Image, top: int, factor: float) -> Image.Image:
        rows = ((np.arange(top, top + band.height) + 0.5) * factor).astype(int).clip(max=result.image.size[0] - 1)
        columns = nearest(width, band.width)
        labels = np.stack([result.label_rows(row, row + 1)[0, columns] for row in rows.tolist()])
        return draw_classes(band, labels, classes=result.class_names, legend=False)

    return paint


def _legend(result: RegionsResult) -> list[dict[str, Any]]:
    """Return name, colour and amount of each class that was found."""
    if isinstance(result, ObjectsResult):
        counts = np.bincount(result.class_numbers, minlength=len(result.class_names))
        amounts = [f"{count:,}" for count in counts.tolist()]
    else:
        assert isinstance(result, SemanticResult)
        counts = result.pixels
        amounts = [f"{share:.1%}" for share in (counts / max(1, counts.sum())).tolist()]
    return [
        {"name": name, "colour": "rgb({}, {}, {})".format(*result.colour(number)), "amount": amounts[number]}
        for number, name in enumerate(result.class_names)
        if counts[number]
    ]
