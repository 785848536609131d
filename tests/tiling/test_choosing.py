from __future__ import annotations

from typing import Any

import pytest
import torch

from detection.cases import RETINANET as SMALL
from detection.cases import retinanet
from vision_longformer.detection import build_retinanet
from vision_longformer.memory.dense import forecast_dense_memory
from vision_longformer.tiling.choosing import Tiling
from vision_longformer.tiling.tiles import Tile
from vision_longformer.utils.system_memory import free_memory

LARGE = (1500, 2500)


@pytest.fixture(scope="module")
def model() -> Any:
    return retinanet(torch.float32)


def test_what_fits_is_looked_at_whole(model: Any) -> None:
    needed = forecast_dense_memory(model, LARGE)
    assert Tiling(model, memory=needed).cut(LARGE) == [Tile(0, 0, *LARGE)]
    assert len(Tiling(model, memory=needed - 1).cut(LARGE)) > 1


def test_tiles_are_as_large_as_memory_allows(model: Any) -> None:
    memory = forecast_dense_memory(model, LARGE) // 3
    tiles = Tiling(model, memory=memory).cut(LARGE)
    assert len({tile.size for tile in tiles}) == 1
    height, width = tiles[0].size
    assert forecast_dense_memory(model, (height, width)) <= memory < forecast_dense_memory(model, (1200, 2000))
    first, second = sorted({tile.left for tile in tiles})[:2]
    assert width - (second - first) >= width // 4


def test_sides_and_overlaps_that_are_given_hold(model: Any) -> None:
    tiles = Tiling(model, tile=1000, overlap=300, memory=1).cut((900, 2000))
    assert [tile.box for tile in tiles] == [(0, 0, 1000, 900), (500, 0, 1500, 900), (1000, 0, 2000, 900)]
    assert Tiling(model, tile=1000, overlap=300).cut((1000, 640)) == [Tile(0, 0, 1000, 640)]


def test_a_share_of_what_is_free_is_taken(model: Any) -> None:
    free = free_memory(torch.device("cpu"))
    assert free > 1e7
    assert 0.2 * free < Tiling(model).memory < free


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 100}, "tile=100: must be at least 128 pixels"),
        ({"tile": 512, "overlap": 512}, "overlap=512: must be at least 0 and smaller than the tile of 512 pixels"),
        ({"tile": 512, "overlap": -1}, "overlap=-1: must be"),
        ({"overlap": -1}, "overlap=-1: must be at least 0"),
        ({"memory": 0}, "memory=0: must be a number of bytes above 0"),
    ],
)
def test_impossible_settings_are_named(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tiling(model, **options)


def test_too_little_memory_says_how_much_is_needed(model: Any) -> None:
    needed = forecast_dense_memory(model, (128, 128))
    with pytest.raises(ValueError, match=rf"memory=1,000: .* about {needed:,} bytes for a tile of 128×128 pixels"):
        Tiling(model, memory=1000).cut(LARGE)
    with pytest.raises(ValueError, match=r"overlap=4000: .* allows tiles of \d+ pixels only"):
        Tiling(model, overlap=4000, memory=forecast_dense_memory(model, LARGE) // 2).cut(LARGE)


def test_backbones_of_one_size_limit_the_tile() -> None:
    built_for_one = build_retinanet(
        "vit_tiny_patch16_224", backbone_options={"img_size": (224, 320), "pretrained": False}, **SMALL
    )
    tiles = Tiling(built_for_one).cut((300, 700))
    assert all(tile.size[0] <= 224 and tile.size[1] <= 320 for tile in tiles)
    assert Tiling(built_for_one).cut((200, 300)) == [Tile(0, 0, 200, 300)]
    with pytest.raises(ValueError, match=r"tile=256: .* built for images of 224×320 pixels"):
        Tiling(built_for_one, tile=256)
