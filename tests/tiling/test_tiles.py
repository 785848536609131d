from __future__ import annotations

import itertools

import numpy as np
import pytest

from vision_longformer.tiling.tiles import Tile, cut_into_tiles


@pytest.mark.parametrize(("tile", "overlap"), [(96, 24), (96, 0), (50, 49), (101, 60), (64, 1)])
def test_tiles_cover_an_image_evenly_and_share_what_they_should(tile: int, overlap: int) -> None:
    for size in ((203, 167), (97, 96), (96, 300), (40, 203), (1, 1)):
        tiles = cut_into_tiles(size, tile=tile, overlap=overlap)
        covered = np.zeros(size, int)
        for part in tiles:
            covered[part.top : part.bottom, part.left : part.right] += 1
            assert part.size == (min(tile, size[0]), min(tile, size[1]))
            assert 0 <= part.left < part.right <= size[1]
        assert covered.min() == 1 or overlap
        assert covered.all()
        for ends in ({(part.top, part.bottom) for part in tiles}, {(part.left, part.right) for part in tiles}):
            ordered = sorted(ends)
            shared = [one[1] - other[0] for one, other in itertools.pairwise(ordered)]
            assert all(pixels >= overlap for pixels in shared)
            assert not shared or max(shared) - min(shared) <= 1


def test_a_small_image_is_one_tile() -> None:
    assert cut_into_tiles((40, 60), tile=64, overlap=16) == [Tile(0, 0, 40, 60)]


@pytest.mark.parametrize("overlap", [-1, 64, 80])
def test_overlaps_that_cannot_be_are_named(overlap: int) -> None:
    with pytest.raises(ValueError, match=f"overlap={overlap}: must be at least 0 and smaller than the tile of 64"):
        cut_into_tiles((100, 100), tile=64, overlap=overlap)
