"""Tensors as the bytes they hold."""

from __future__ import annotations

import pytest
import torch

from vision_longformer.utils.tensor_files import bytes_of


def test_bytes_are_a_view_in_the_order_of_the_elements() -> None:
    values = torch.tensor([[1, 256], [2, 3]], dtype=torch.int16)
    assert list(bytes_of(values)) == [1, 0, 0, 1, 2, 0, 3, 0]
    bytes_of(values)[0] = 7
    assert int(values[0, 0]) == 7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.bool, torch.float32])
def test_a_tensor_of_one_element_may_have_any_stride(dtype: torch.dtype) -> None:
    one = torch.ones(1, 1, 9, dtype=dtype).permute(2, 0, 1)[4:5, 0]  # (1, 1), as the map of a tiny image comes
    one = one.as_strided((1, 1), (256, 256), one.storage_offset())
    assert one.is_contiguous()
    assert bytes_of(one).tobytes() == bytes_of(torch.ones(1, dtype=dtype)).tobytes()


def test_a_tensor_of_nothing_has_no_bytes() -> None:
    assert len(bytes_of(torch.empty(0, 3))) == 0
