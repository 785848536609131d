from __future__ import annotations

from itertools import chain

import pytest
import torch

from vision_longformer.features.batches import PADDED, group, pad, windows
from vision_longformer.images import Pixels
from vision_longformer.padding import Size


def test_images_of_one_size_fill_batches() -> None:
    batches = group([(10, 20)] * 7, most=lambda _: 3)
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert sorted(chain(*batches)) == list(range(7))


def test_portraits_and_landscapes_stay_apart() -> None:
    assert group([(10, 20), (20, 10), (10, 20), (20, 10)], most=lambda _: 9) == [[0, 2], [1, 3]]


def test_padding_is_bounded() -> None:
    sizes = [(height, width) for height in range(5, 60, 7) for width in range(5, 60, 6)]
    batches = group(sizes, most=lambda _: 8)
    assert sorted(chain(*batches)) == list(range(len(sizes)))
    assert len(batches) < len(sizes) / 2
    for batch in batches:
        height, width = (max(sizes[place][axis] for place in batch) for axis in (0, 1))
        pixels = sum(sizes[place][0] * sizes[place][1] for place in batch)
        assert len(batch) * height * width <= PADDED * pixels


def test_the_size_of_the_padded_batch_decides_how_many_fit() -> None:
    def fitting(size: Size) -> int:
        return 4 if size == (10, 10) else 2

    assert [len(batch) for batch in group([(10, 10)] * 4 + [(11, 10)] * 3, most=fitting)] == [4, 2, 1]


def test_what_fits_nowhere_goes_alone() -> None:
    assert group([(10, 10)] * 2, most=lambda _: 0) == [[0], [1]]


@pytest.mark.parametrize(("count", "lengths"), [(0, []), (4, [4]), (9, [4, 4, 1])])
def test_windows(count: int, lengths: list[int]) -> None:
    found = list(windows(range(count), most=4))
    assert [len(window) for window in found] == lengths
    assert list(chain(*found)) == list(range(count))


@pytest.mark.parametrize("missing", [False, True])
def test_bytes_are_padded_as_the_fractions_that_they_stand_for(missing: bool) -> None:
    sizes = [(5, 7), (6, 4)]
    stored = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8) for size in sizes]
    valid = [torch.ones(size, dtype=torch.bool) for size in sizes]
    as_fractions = [Pixels(one / 255, there, size) for one, there, size in zip(stored, valid, sizes, strict=True)]
    as_bytes = [Pixels(one, there, size) for one, there, size in zip(stored, valid, sizes, strict=True)]
    if missing:
        valid[1][2, 1] = False
        as_bytes[1] = as_fractions[1]
    mean, std = (0.5, 0.25, 0.125), (0.2, 0.3, 0.7)
    found, expected = (
        pad(pixels, mean=mean, std=std, dtype=torch.float64, device=torch.device("cpu"))
        for pixels in (as_bytes, as_fractions)
    )
    assert torch.equal(found.images, expected.images)
    first = ((stored[0] / 255).double() - torch.tensor(mean, dtype=torch.float64)) / torch.tensor(std).double()
    torch.testing.assert_close(found.images[0, :, :5, :7], first.permute(2, 0, 1), rtol=1e-6, atol=1e-6)
    if missing:
        assert found.valid is not None
        assert not found.valid[1, 2, 1]
        assert found.valid.sum() == 5 * 7 + 6 * 4 - 1
    else:
        assert found.valid is None
