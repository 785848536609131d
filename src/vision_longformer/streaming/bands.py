"""How high bands are, so that what they hold stays within a number of bytes.

W tokens a row, C channels, w rows in a chunk row
"""

from __future__ import annotations

# Of all bands of a block together. Larger bands gain nothing, smaller ones copy more of their halo.
BAND_BYTES = 128 * 2**20
# Tensors of a band: its input, queries, keys, values, what attention gives, the output.
_OF_BAND = 6
_OF_HALO = 4  # its input, queries, keys, values


def choose_band_rows(height: int, row_bytes: int, *, step: int, halo: int, band_bytes: int) -> int:
    """Return how many chunk rows go through a block at once.

    Args:
        height: Of the map, in tokens.
        row_bytes: Of one row of tokens, W·C values.
        step: w; 1 for attention without windows.
        halo: Rows of keys needed above and below.
        band_bytes: What a band may hold. One chunk row is taken even if it holds more.
    """
    left = band_bytes - 2 * halo * row_bytes * _OF_HALO
    rows = max(1, left // (step * row_bytes * _OF_BAND))
    rows = min(rows, -(-height // step))
    return rows - rows % 2 if rows > 2 else rows  # the next stage's patches then begin where bands do
