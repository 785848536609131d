from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vision_longformer.explore import tiles
from vision_longformer.explore.overlays import FarOutError, overlay_tile, tokens_of
from vision_longformer.explore.tiles import ImageTiles, level_size, max_level
from vision_longformer.images import ArrayReader
from vision_longformer.segmentation.token_grid import Region

SIZE = (600, 900)


def _image() -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.stack([x // 4, y // 3, (x + y) // 8], axis=-1).astype(np.uint8)


def _whole(level: int) -> np.ndarray:
    """Return a level, put together of its tiles."""
    found = ImageTiles(ArrayReader(_image()), 3)
    height, width = level_size(SIZE, level)
    rows = [
        np.concatenate(
            [np.asarray(Image.open(io.BytesIO(found.tile(level, x, y)))) for x in range(-(-width // tiles.SIDE))],
            axis=1,
        )
        for y in range(-(-height // tiles.SIDE))
    ]
    return np.concatenate(rows)


def test_the_finest_level_is_the_image() -> None:
    assert max_level(SIZE) == 10
    assert np.abs(_whole(10).astype(int) - _image()).mean() < 2  # JPEG


@pytest.mark.parametrize("level", [9, 7, 3, 0])
def test_coarser_levels_are_the_image_averaged(level: int) -> None:
    factor = 2 ** (10 - level)
    found = _whole(level)

    assert found.shape[:2] == (-(-SIZE[0] // factor), -(-SIZE[1] // factor))
    rows, columns = (np.minimum(np.arange(length) // factor, -(-length // factor) - 1) for length in SIZE)
    count = np.zeros(found.shape[:2])
    np.add.at(count, (rows[:, None], columns[None]), 1)
    for channel in range(3):
        total = np.zeros(found.shape[:2])
        np.add.at(total, (rows[:, None], columns[None]), _image()[..., channel])
        inner = (slice(0, SIZE[0] // factor), slice(0, SIZE[1] // factor))
        assert np.abs(found[inner][..., channel] - (total / count)[inner]).max(initial=0) < 12  # JPEG, and rounding


def test_levels_are_made_in_any_order_with_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = _whole(6)
    monkeypatch.setattr(tiles, "SMALL", 100)
    monkeypatch.setattr(tiles, "CACHE_BYTES", 1)

    np.testing.assert_array_equal(_whole(6), coarse)


@pytest.mark.parametrize("place", [(11, 0, 0), (-1, 0, 0), (10, 4, 0), (10, 0, 3), (10, -1, 0)])
def test_there_are_no_other_tiles(place: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="level"):
        ImageTiles(ArrayReader(_image()), 3).tile(*place)


def test_a_pixel_of_a_level_shows_the_token_that_its_middle_lies_in() -> None:
    assert tokens_of(0, 5, factor=1, stride=3, tokens=9).tolist() == [0, 0, 0, 1, 1]
    assert tokens_of(0, 4, factor=4, stride=3, tokens=9).tolist() == [0, 2, 3, 4]  # middles at 2, 6, 10, 14
    assert tokens_of(3, 4, factor=4, stride=3, tokens=4).tolist() == [3]


def test_an_overlay_is_the_same_at_every_place_whatever_tile_shows_it() -> None:
    def paint(region: Region) -> np.ndarray:
        rows, columns = np.mgrid[region.top : region.bottom, region.left : region.right]
        return np.stack([rows % 256, columns % 256, rows // 256, np.full_like(rows, 255)], axis=-1).astype(np.uint8)

    for level in (10, 9, 6):
        factor = 2 ** (10 - level)
        height, width = level_size(SIZE, level)
        for row in range(-(-height // 256)):
            for column in range(-(-width // 256)):
                data = overlay_tile(paint, level=level, column=column, row=row, image=SIZE, tokens=(200, 300), stride=3)
                found = np.asarray(Image.open(io.BytesIO(data)))
                middle = (np.arange(row * 256, row * 256 + found.shape[0]) * factor + factor // 2) // 3
                np.testing.assert_array_equal(found[:, 0, 0], np.minimum(middle, 199))


def test_a_tile_that_shows_too_much_is_refused() -> None:
    size = (300_000, 300_000)
    with pytest.raises(FarOutError, match="zoom in, or apply to the whole image"):
        overlay_tile(
            lambda region: np.zeros(0, np.uint8),
            level=3,
            column=0,
            row=0,
            image=size,
            tokens=(100_000, 100_000),
            stride=3,
        )
