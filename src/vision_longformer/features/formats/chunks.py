"""Into which pieces a map is cut: small enough for memory and viewers, large enough to be few.

H×W map, C channels
"""

from __future__ import annotations

from collections.abc import Iterator

BAND_BYTES = 32 * 2**20  # of the rows that are converted at once, in float32
CHUNK_BYTES = 8 * 2**20  # of one chunk before compression
SIDE = 256  # tokens of a chunk, if nothing speaks against it
SMALLEST = 16  # tokens: what a TIFF's tile is a multiple of


def choose_chunk(shape: tuple[int, int, int], *, itemsize: int) -> tuple[int, int]:
    """Return (height, width) in tokens of the chunks of a map, all of its channels in one chunk.

    Both are powers of two, and at least `SMALLEST`. Chunks are square unless the map is wide: they are then lower, and
    wider, but no more than four times as wide. A row of chunks takes at most `BAND_BYTES` in float32 and a chunk
    at most `CHUNK_BYTES` as stored, unless `SMALLEST` takes more.

    Args:
        shape: (H, W, C).
        itemsize: Bytes of a value as stored.
    """
    _, width, channels = shape
    rows = columns = SIDE
    while rows > SMALLEST and rows * width * channels * 4 > BAND_BYTES:
        rows //= 2
    while rows * columns < SIDE**2 and columns < min(width, 4 * SIDE):
        columns *= 2
    while max(rows, columns) > SMALLEST and rows * columns * channels * itemsize > CHUNK_BYTES:
        rows, columns = (rows // 2, columns) if rows >= columns else (rows, columns // 2)
    return rows, columns


def bands(height: int, step: int) -> Iterator[tuple[int, int]]:
    """Give (top, bottom) of bands of `step` rows; the last one may be lower."""
    for top in range(0, height, step):
        yield top, min(top + step, height)
