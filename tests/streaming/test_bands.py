from __future__ import annotations

from vision_longformer.streaming.bands import choose_band_rows


def test_bands_fill_their_bytes_and_no_more() -> None:
    # 7 rows of 100 bytes, 6 tensors: 4200 bytes a chunk row; the halo takes 2·7·100·4 = 5600
    assert choose_band_rows(10_000, 100, step=7, halo=7, band_bytes=5600 + 4200 * 6) == 6
    assert choose_band_rows(10_000, 100, step=7, halo=7, band_bytes=5600 + 4200 * 6 - 1) == 4  # even


def test_there_is_always_one_and_never_more_than_the_map_has() -> None:
    assert choose_band_rows(10_000, 100, step=7, halo=7, band_bytes=1) == 1
    assert choose_band_rows(8, 100, step=7, halo=7, band_bytes=2**30) == 2
