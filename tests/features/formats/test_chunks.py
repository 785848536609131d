from __future__ import annotations

import pytest

from vision_longformer.features.formats.chunks import BAND_BYTES, CHUNK_BYTES, SIDE, SMALLEST, bands, choose_chunk


def test_small_maps_have_square_chunks() -> None:
    assert choose_chunk((500, 700, 24), itemsize=2) == (SIDE, SIDE)


@pytest.mark.parametrize("shape", [(8192, 8192, 48), (1024, 1024, 384), (300, 5_000, 96), (90, 70, 1024)])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_chunks_and_bands_are_bounded(shape: tuple[int, int, int], itemsize: int) -> None:
    rows, columns = choose_chunk(shape, itemsize=itemsize)
    assert rows * columns * shape[2] * itemsize <= CHUNK_BYTES
    assert rows * shape[1] * shape[2] * 4 <= BAND_BYTES
    assert rows % SMALLEST == columns % SMALLEST == 0


def test_chunks_of_wide_maps_are_wide() -> None:
    rows, columns = choose_chunk((8192, 8192, 48), itemsize=2)
    assert rows < SIDE < columns
    assert rows * columns == 16 * 1024


def test_chunks_never_get_smaller_than_a_tile_may_be() -> None:
    assert choose_chunk((500, 10**6, 10**4), itemsize=4) == (SMALLEST, SMALLEST)


def test_bands_cover_all_rows_once() -> None:
    assert list(bands(23, 10)) == [(0, 10), (10, 20), (20, 23)]
