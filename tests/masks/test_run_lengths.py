from __future__ import annotations

import time

import numpy as np
import pytest
from pycocotools import mask as reference

from vision_longformer.masks import run_lengths

SIZE = (13, 29)


def random_mask(seed: int, share: float = 0.4) -> np.ndarray:
    return np.random.default_rng(seed).random(SIZE) < share


@pytest.mark.parametrize("share", [0.0, 0.02, 0.4, 0.98, 1.0])
def test_masks_become_the_texts_of_pycocotools_and_masks_again(share: float) -> None:
    for seed in range(10):
        mask = random_mask(seed, share)
        runs = run_lengths.from_mask(mask)
        text = run_lengths.encode(runs)
        assert text == reference.encode(np.asfortranarray(mask, np.uint8))["counts"]
        counts = run_lengths.decode(text)
        np.testing.assert_array_equal(counts, runs)
        np.testing.assert_array_equal(run_lengths.to_mask(run_lengths.checked(counts, size=SIZE), SIZE), mask)
        assert run_lengths.area(runs) == mask.sum()


def test_long_runs_take_as_many_characters_as_pycocotools_gives_them() -> None:
    generator = np.random.default_rng(0)
    for bits in range(1, 28):
        counts = generator.integers(0, 2**bits, 9)
        side = int(counts.sum())
        compressed = reference.frPyObjects({"size": [side, 1], "counts": counts.tolist()}, side, 1)["counts"]
        assert run_lengths.encode(counts.astype(np.uint32)) == compressed
        np.testing.assert_array_equal(run_lengths.decode(compressed), counts)


@pytest.mark.parametrize(
    ("corner", "shape"), [((2, 3), (5, 7)), ((0, 0), SIZE), ((-2, -3), (6, 9)), ((9, 25), (8, 11)), ((40, 50), (3, 2))]
)
def test_a_crop_becomes_the_runs_of_the_mask_it_stands_for(corner: tuple[int, int], shape: tuple[int, int]) -> None:
    for share in (0.0, 0.5, 1.0):
        crop = np.random.default_rng(1).random(shape) < share
        large = np.zeros((100, 100), bool)
        large[40 + corner[0] : 40 + corner[0] + shape[0], 40 + corner[1] : 40 + corner[1] + shape[1]] = crop
        whole = large[40 : 40 + SIZE[0], 40 : 40 + SIZE[1]]
        runs = run_lengths.from_crop(crop, corner=corner, size=SIZE)
        np.testing.assert_array_equal(runs, run_lengths.from_mask(whole))


def test_a_crop_of_a_huge_image_costs_what_the_crop_costs() -> None:
    crop = np.ones((20, 20), bool)
    start = time.perf_counter()
    runs = run_lengths.from_crop(crop, corner=(20_000, 30_000), size=(40_000, 40_000))
    assert time.perf_counter() - start < 0.5  # the mask itself would be 1.6 GB
    assert run_lengths.area(runs) == 400


def test_empty_runs_are_joined() -> None:
    assert run_lengths.checked([0, 3, 0, 2, 4, 0], size=(3, 3)).tolist() == [0, 5, 4]
    assert run_lengths.checked([3, 0, 2, 4], size=(3, 3)).tolist() == [5, 4]
    assert run_lengths.checked([0, 0, 9], size=(3, 3)).tolist() == [9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("5~2", "a character that the code does not have"),
        ("5 2", "a character that the code does not have"),
        ("5\xe92", "a character that the code does not have"),
        ("52P", "cut short"),
        ("PPPPPPPPPPP1", "more than 32 bits"),
    ],
)
def test_texts_that_are_no_code_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_lengths.decode(text)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([], "add up to 0 pixels, and the image has 3×3 = 9"),
        ([4, 4], "add up to 8 pixels"),
        ([4, 6], "add up to 10 pixels"),
        ([10, -1], r"a negative number \(-1\)"),
        ([2**63 - 1, 2**63 - 1, 11], "add up to 18446744073709551625 pixels"),
        ([2**70, 1], "more than 64 bits"),
    ],
)
def test_counts_that_are_no_runs_are_refused(counts: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_lengths.checked(counts, size=(3, 3))
