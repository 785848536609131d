"""One block over a map that arrives by rows.

H×W map, C channels, G global tokens, R chunk rows in a band

Rows go through the attention; each band that has attended goes through the rest of the block. The global tokens can be
updated when the last row has passed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from vision_longformer.attention.rowwise import Attended, RowwiseAttention, RowwiseLayer, finish
from vision_longformer.backbone import Block
from vision_longformer.streaming.rows import Rows, Stream
from vision_longformer.utils.distributed import Processes


class StreamedBlock:
    """Applies a block to one map.

    Args:
        block: In evaluation mode.
        global_tokens: (G, C), as they enter the block.
        size: (height, width) of the map.
        band_rows: Chunk rows R that attend at once.
        update_global: Whether anybody needs the updated global tokens.
        rows: (top, bottom) of those that are transformed. A halo above and below them comes in, too.

    Attributes:
        global_tokens: (G, C), as they entered until `finish` is called.
    """

    def __init__(
        self,
        block: Block,
        global_tokens: Tensor,
        size: tuple[int, int],
        *,
        band_rows: int,
        update_global: bool,
        rows: tuple[int, int],
    ) -> None:
        self.block = block
        self.layer = cast(RowwiseLayer, block.attn)
        self.global_tokens = global_tokens
        self.update_global = update_global and len(global_tokens) > 0
        self.rows = rows
        self.attention = RowwiseAttention(
            self.layer,
            global_tokens[None],
            size,
            band_rows=band_rows,
            gather=self.update_global,
            norm=block.norm1,
            rows=rows,
        )
        self.waiting: deque[Rows] = deque()  # rows that were projected, but have not attended

    def run(self, source: Stream) -> Stream:
        """Return the transformed map as a stream that draws on `source`."""
        return Stream(source.size, self._bands(source.rows))

    def _bands(self, source: Iterator[Rows]) -> Iterator[Rows]:
        for rows in source:
            top = rows.top
            while top < rows.bottom:
                part = rows.part(top, min(rows.bottom, top + self.attention.room))
                self.attention.project(part.tokens, part.valid)
                first, last = max(part.top, self.rows[0]), min(part.bottom, self.rows[1])
                if first < last:
                    self.waiting.append(part.part(first, last))
                top = part.bottom
                while attended := self.attention.attend():
                    yield self._finish(attended)

    def _finish(self, attended: Attended) -> Rows:
        """Take a band through the rest of the block."""
        out, bottom = torch.empty_like(attended.tokens), attended.top + len(attended.tokens)
        place = attended.top
        while place < bottom:
            rows = self.waiting.popleft()
            if rows.bottom > bottom:
                self.waiting.appendleft(rows.part(bottom, rows.bottom))
                rows = rows.part(place, bottom)
            inside = slice(rows.top - attended.top, rows.bottom - attended.top)
            finish(self.layer, self.block.rest, rows.tokens, attended.part(inside), out=out[inside])
            place = rows.bottom
        return Rows(attended.top, out, attended.valid)

    def finish(self, processes: Processes) -> None:
        """Update the global tokens, once the last row has passed in all processes that share the map."""
        if self.update_global:
            others = None if processes.count == 1 else processes
            self.global_tokens = self.block.rest(self.global_tokens[None], self.attention.gathered(others))[0]
