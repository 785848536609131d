from __future__ import annotations

import itertools

import pytest
import torch

from vision_longformer.attention.geometry import ALL, OWN, axis_runs, regions, relative_position_index, within_window
from vision_longformer.padding import Padding, pad_to_multiple

CPU = torch.device("cpu")


@pytest.mark.parametrize("window", [1, 2, 5])
def test_relative_position_index_follows_its_formula(window: int) -> None:
    index = relative_position_index(window, device=CPU).view(window, window, 3 * window, 3 * window)
    near = within_window(window, device=CPU).view(index.shape)
    queries, keys = range(window), range(-window, 2 * window)
    for r, c, key_r, key_c in itertools.product(queries, queries, keys, keys):
        row_step, column_step = r - key_r, c - key_c
        expected = (row_step + 2 * window - 1) * (4 * window - 1) + column_step + 2 * window - 1
        at = (r, c, key_r + window, key_c + window)
        assert index[at] == expected
        assert near[at] == (abs(row_step) <= window and abs(column_step) <= window)


def test_every_offset_has_a_row_of_its_own() -> None:
    index = relative_position_index(3, device=CPU)
    assert index.min() == 0
    assert index.max() == 11**2 - 1
    assert index.unique().numel() == 11**2


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (2, [(0, 1, 2, (0, 2))]),  # one partial chunk
        (5, [(0, 1, 5, (0, 5))]),
        (7, [(0, 1, 5, (0, 7)), (1, 1, 2, (-5, 2))]),
        (20, [(0, 1, 5, (0, 10)), (1, 2, 5, (-5, 10)), (3, 1, 5, (-5, 5))]),
        (22, [(0, 1, 5, (0, 10)), (1, 2, 5, (-5, 10)), (3, 1, 5, (-5, 7)), (4, 1, 2, (-5, 2))]),
    ],
)
def test_axis_runs_group_chunks_that_lack_the_same_neighbours(
    length: int, expected: list[tuple[int, int, int, tuple[int, int]]]
) -> None:
    runs = axis_runs(length, 5, [(-1, 1)], keys=(0, length))
    assert [(run.first, run.count, run.queries, *run.keys) for run in runs] == expected


def test_wrapped_axis_has_no_edges() -> None:
    runs = axis_runs(15, 5, [(-1, 1)], keys=(-5, 20))
    assert [(run.first, run.count, run.keys) for run in runs] == [(0, 3, ((-5, 10),))]


def test_regions_cover_every_query_once() -> None:
    covered = torch.zeros(11, 7, dtype=torch.long)
    for region in regions((11, 7), 3, ALL, keys=((0, 11), (0, 7))):
        for row, column in itertools.product(range(region.rows.count), range(region.columns.count)):
            top, left = (region.rows.first + row) * 3, (region.columns.first + column) * 3
            covered[top : top + region.rows.queries, left : left + region.columns.queries] += 1
    assert (covered == 1).all()


def test_neighbour_off_the_map_leaves_the_own_chunk() -> None:
    (region,) = regions((3, 3), 3, (OWN, (-1, 1)), keys=((0, 3), (0, 3)))
    assert region.keys == (((0, 3), (0, 3)),)


def test_pad_to_multiple_pads_bottom_and_right() -> None:
    x = torch.ones(2, 3, 5, 1)
    padded = pad_to_multiple(x, 4)
    assert padded.shape == (2, 4, 8, 1)
    assert padded[:, :3, :5].all()
    assert padded.sum() == x.sum()


def test_token_is_real_if_its_patch_holds_a_real_pixel() -> None:
    valid = torch.zeros(1, 5, 7, dtype=torch.bool)
    valid[0, 4, 6] = valid[0, 0, 3] = True
    padding = Padding(valid=valid, sizes=torch.tensor([[5, 7]])).downsample(2)
    assert padding.valid is not None
    assert padding.sizes is not None
    assert padding.valid.nonzero().tolist() == [[0, 0, 1], [0, 2, 3]]
    assert padding.sizes.tolist() == [[3, 4]]


def test_clean_replaces_even_nan() -> None:
    padding = Padding(valid=torch.tensor([[[True, False]]]), sizes=torch.tensor([[1, 1]]))
    cleaned = padding.clean(torch.tensor([[[[1.0], [float("nan")]]]]))
    assert cleaned.flatten().tolist() == [1.0, 0.0]
