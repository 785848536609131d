from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vision_longformer.segmentation import token_grid
from vision_longformer.segmentation.token_grid import Region, Summed, TokenGrid
from vision_longformer.segmentation.token_head import TokenHead, label_tokens, margins, token_of, tokens_to_pixels

STRIDES = (3, 6, 12)
SIZES = ((22, 37), (11, 19), (6, 10))
CHANNELS = (5, 7, 11)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_grid, "TILE", 4)


def _maps(seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(channels, *size)) for channels, size in zip(CHANNELS, SIZES, strict=True)]


def _head(classes: int = 3) -> TokenHead:
    generator = np.random.default_rng(1)

    def numbers(*shape: int) -> np.ndarray:
        return np.asarray(generator.normal(size=shape), np.float32)

    return TokenHead(
        tuple(numbers(channels, classes) for channels in CHANNELS),
        numbers(classes),
        tuple(numbers(channels) for channels in CHANNELS),
        tuple(np.abs(numbers(channels)) + 0.5 for channels in CHANNELS),
    )


def test_each_map_is_interpolated_between_the_middles_of_its_tokens() -> None:
    maps = _maps()
    grid = TokenGrid(maps, STRIDES)

    for number, values in enumerate(maps):
        ratio = STRIDES[number] // STRIDES[0]
        larger = F.interpolate(torch.from_numpy(values)[None], scale_factor=ratio, mode="bilinear")[0].numpy()
        parts = [None] * number + [lambda tokens: tokens] + [None] * (len(maps) - number - 1)
        found = Summed(grid, parts)(grid.whole)
        expected = np.moveaxis(larger[:, : SIZES[0][0], : SIZES[0][1]], 0, -1)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "region", [Region(0, 1, 0, 1), Region(3, 9, 5, 18), Region(21, 22, 0, 37), Region(7, 22, 36, 37)]
)
def test_a_region_is_the_same_part_of_the_whole_bit_for_bit(region: Region) -> None:
    whole = _head().on(TokenGrid(_maps(), STRIDES))(Region(0, *SIZES[0][:1], 0, SIZES[0][1]))

    part = _head().on(TokenGrid(_maps(), STRIDES))(region)

    top, bottom, left, right = region
    np.testing.assert_array_equal(part, whole[top:bottom, left:right])


def test_logits_are_those_of_all_features_interpolated_and_concatenated() -> None:
    grid, head = TokenGrid(_maps(), STRIDES), _head()
    rows, columns = np.divmod(np.arange(SIZES[0][0] * SIZES[0][1]), SIZES[0][1])

    standardised = [
        (grid.at(number, rows, columns) - mean) / std
        for number, (mean, std) in enumerate(zip(head.means, head.stds, strict=True))
    ]
    expected = np.concatenate(standardised, axis=1) @ np.concatenate(head.weights) + head.bias

    np.testing.assert_allclose(head.on(grid)(grid.whole).reshape(expected.shape), expected, atol=1e-4)


def test_features_at_tokens_are_those_of_the_region() -> None:
    grid = TokenGrid(_maps(), STRIDES)
    rows, columns = np.array([0, 5, 21, 21]), np.array([0, 17, 36, 2])

    for number in range(3):
        parts = [None] * number + [lambda tokens: tokens] + [None] * (2 - number)
        np.testing.assert_array_equal(grid.at(number, rows, columns), Summed(grid, parts)(grid.whole)[rows, columns])


def test_labels_are_the_largest_logits_and_margins_the_lead_of_the_largest() -> None:
    logits = _head().on(TokenGrid(_maps(), STRIDES))
    values = logits(logits.grid.whole)

    np.testing.assert_array_equal(label_tokens(logits), values.argmax(-1))
    ordered = np.sort(values, axis=-1)
    np.testing.assert_array_equal(margins(values), ordered[..., -1] - ordered[..., -2])


def test_a_pixel_has_the_value_of_the_token_that_it_lies_in() -> None:
    tokens = np.arange(6).reshape(2, 3)

    pixels = tokens_to_pixels(tokens, stride=3, size=(5, 7))

    assert pixels[:, 0].tolist() == [0, 0, 0, 3, 3]
    assert pixels[0].tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert token_of((6.9, 4.9), stride=3, size=(2, 3)) == (1, 2)
    assert token_of((-5, 400), stride=3, size=(2, 3)) == (1, 0)


def test_a_cache_forgets_what_was_used_longest_ago() -> None:
    cache, made = token_grid.Cache(2 * 80), list[str]()

    def make(name: str) -> np.ndarray:
        made.append(name)
        return np.zeros(10)

    for name in ("a", "b", "a", "c", "a", "b"):
        cache.get(name, lambda name=name: make(name))  # type: ignore[misc]

    assert made == ["a", "b", "c", "b"]


def test_a_head_of_other_features_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the features have \(5, 7\) channels, the head was trained on \(5, 7, 11\)"):
        _head().on(TokenGrid(_maps()[:2], STRIDES[:2]))


def test_strides_must_be_multiples_of_the_finest() -> None:
    with pytest.raises(ValueError, match=r"strides=\(3, 7, 12\): must be multiples of the finest one"):
        TokenGrid(_maps(), (3, 7, 12))
