"""What flows through a streamed model: rows of a map, from its top to its bottom.

H×W map, n rows, C channels
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Some whole rows of a map.

    Attributes:
        top: Number of the first of them.
        tokens: (n, W, C); finite where not valid, and zero there in what a block gives.
        valid: (n, W) boolean, true where a position is real; None where all are.
    """

    top: int
    tokens: Tensor
    valid: Tensor | None = None

    @property
    def bottom(self) -> int:
        """One past the number of the last row."""
        return self.top + self.tokens.shape[0]

    def part(self, top: int, bottom: int) -> Rows:
        """Return a view of rows `top` to `bottom` of the map."""
        inside = slice(top - self.top, bottom - self.top)
        return Rows(top, self.tokens[inside], None if self.valid is None else self.valid[inside])


@dataclass(frozen=True)
class Stream:
    """A map, or a strip of one, that is seen once, from top to bottom.

    Attributes:
        size: (height, width) of the whole map.
        rows: Some of its rows; each begins where the one before ended. Who takes them may keep them, but not change
            them.
    """

    size: tuple[int, int]
    rows: Iterator[Rows]
