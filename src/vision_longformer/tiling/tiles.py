"""An image cut into overlapping tiles.

Sizes are (height, width), boxes x1 y1 x2 y2, both in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from vision_longformer.padding import Size


@dataclass(frozen=True)
class Tile:
    """A rectangle of an image: rows `top` to `bottom`, columns `left` to `right`, their ends excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The tile as x1 y1 x2 y2."""
        return self.left, self.top, self.right, self.bottom


def cut_into_tiles(size: Size, *, tile: int, overlap: int) -> list[Tile]:
    """Return tiles that cover an image, row by row, as few as there can be, and evenly spread.

    Args:
        size: Of the image.
        tile: Side of a tile; a shorter side of the image is not cut.
        overlap: Pixels that neighbours share at least: whatever is no larger lies whole in some tile.

    Raises:
        ValueError: The overlap is not smaller than the tile.
    """
    check_overlap(tile, overlap)
    rows, columns = (_starts(length, tile, overlap) for length in size)
    height, width = (min(tile, length) for length in size)
    return [Tile(top, left, top + height, left + width) for top in rows for left in columns]


def check_overlap(tile: int, overlap: int) -> None:
    """Check that tiles can overlap so.

    Raises:
        ValueError: The overlap is negative, or not smaller than the tile.
    """
    if not 0 <= overlap < tile:
        raise ValueError(
            f"overlap={overlap}: must be at least 0 and smaller than the tile of {tile} pixels; about a quarter of it, "
            "or the size of the largest objects, is good"
        )


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    if length <= tile:
        return [0]
    last = -(-(length - tile) // (tile - overlap))  # number of the last tile
    return [number * (length - tile) // last for number in range(last + 1)]
