"""What a call of windowed attention is given, whoever computes it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vision_longformer.attention.geometry import Offset, Range

# The fields of `Windows`, as operators of PyTorch declare them
SCHEMA = (
    "Tensor query, Tensor key_value, Tensor global_key_value, Tensor? table, Tensor? global_bias, Tensor? valid, "
    "Tensor offsets, int window, int top, int left, bool exact"
)


class Windows(NamedTuple):
    """Queries of a map, the keys and values around them, and how they are laid out.

    B batch, H×W map, H'×W' map of keys, h heads, d head width, G global tokens, w window

    Attributes:
        query: (B, H, W, h, d) with any strides.
        key_value: (B, H', W', 2, h, d): H×W from (top, left) on, and what wraps around outside it.
        global_key_value: (B, G, 2, h, d).
        table: ((4w − 1)², h) biases by relative position, or None.
        global_bias: (h, G), or None.
        valid: (B, H', W'), false at keys that nothing may see; None where all may be seen.
        offsets: (n, 2) integers: (row, column) of the chunks seen.
        window: Side w of a chunk.
        top: Where the queries' first row stands in the map of keys.
        left: The same for the first column.
        exact: Whether only keys up to w rows and w columns away are seen.
    """

    query: Tensor
    key_value: Tensor
    global_key_value: Tensor
    table: Tensor | None
    global_bias: Tensor | None
    valid: Tensor | None
    offsets: Tensor
    window: int
    top: int
    left: int
    exact: bool

    @property
    def chunks(self) -> list[Offset]:
        """The chunks seen, as (row, column)."""
        return [(row, column) for row, column in self.offsets.tolist()]

    @property
    def key_ranges(self) -> tuple[Range, Range]:
        """Rows and columns that hold keys, counted from the first query."""
        rows, columns = self.key_value.shape[1:3]
        return (-self.top, rows - self.top), (-self.left, columns - self.left)
