from __future__ import annotations

import torch

from vision_longformer.attention.row_buffer import RowBuffer


def test_it_holds_the_last_rows_in_order() -> None:
    numbers = torch.arange(60)
    for capacity in (5, 7, 12):
        buffer, end = RowBuffer(torch.full((capacity,), -1)), 0
        for count in (1, 2, 1, 3, 1, 1, 2, 3, 1, 2, 3, 3, 1):
            kept = max(0, end - 2)
            buffer.append(count, kept).copy_(numbers[end : end + count])
            end += count
            assert torch.equal(buffer.rows(kept, end), numbers[kept:end])
