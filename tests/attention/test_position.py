from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vision_longformer.attention.full import resize_step_table
from vision_longformer.attention.position import AbsolutePosition, interpolate, resize_axis_table


@pytest.mark.parametrize("length", [1, 5, 11, 13, 40])
def test_axis_table_is_resized_like_torch_interpolates(length: int) -> None:
    table = torch.randn(11, 3, dtype=torch.float64)
    expected = F.interpolate(table.T[None], size=length, mode="linear", align_corners=False)[0].T
    torch.testing.assert_close(resize_axis_table(table, length), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("grid", [(1, 1), (3, 7), (5, 4), (9, 6)])
def test_step_table_is_resized_like_torch_interpolates(grid: tuple[int, int]) -> None:
    table = torch.randn(9 * 7, 2, dtype=torch.float64)  # of maps of 5×4
    square = table.T.view(1, 2, 9, 7)
    size = (2 * grid[0] - 1, 2 * grid[1] - 1)
    expected = F.interpolate(square, size=size, mode="bilinear", align_corners=False)[0].flatten(1).T
    torch.testing.assert_close(resize_step_table(table, (5, 4), grid), expected, rtol=0, atol=1e-14)


def test_tables_of_the_right_size_stay_as_they_are() -> None:
    table = torch.randn(11, 3)
    assert torch.equal(resize_axis_table(table, 11), table)
    table = torch.randn(9 * 7, 2)
    assert torch.equal(resize_step_table(table, (5, 4), (5, 4)), table)


def test_each_image_gets_the_table_of_its_own_size() -> None:
    position = AbsolutePosition(6, (5, 7), num_global_tokens=0)
    sizes = torch.tensor([[4, 9], [5, 7], [2, 3]])
    together = position(5, 9, sizes)
    for embedded, (height, width) in zip(together, sizes.tolist(), strict=True):
        alone = position(height, width, torch.tensor([[height, width]]))[0]
        assert torch.equal(embedded[:height, :width], alone)


def test_embedding_is_row_then_column() -> None:
    position = AbsolutePosition(6, (5, 7), num_global_tokens=2)
    embedded: Tensor = position(5, 7, torch.tensor([[5, 7]]))[0]
    for row, column in ((0, 0), (4, 1), (2, 6)):
        expected = torch.cat([position.rows[row], position.columns[column]])
        assert torch.equal(embedded[row, column], expected)


def test_interpolation_clamps_to_the_ends() -> None:
    table = torch.tensor([[1.0], [3.0]])
    places = torch.tensor([[-4.0, 0.0, 0.25, 1.0, 9.0]])
    assert interpolate(table, places).flatten().tolist() == [1.0, 1.0, 1.5, 3.0, 3.0]
