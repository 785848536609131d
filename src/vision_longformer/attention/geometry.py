"""Where chunks, neighbours and relative positions lie. Pure functions; nothing here holds parameters.

H, W   map height and width in tokens
w      window: side of a chunk in tokens
L      length of one axis, H or W

The map is cut into w×w chunks from the top left; the last chunk of an axis may be partial. Offsets and sizes are
(row, column).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Offset = tuple[int, int]

OWN: Offset = (0, 0)
# The order in which the published code numbers the neighbours it draws for random shifting, from 1 to 8.
NEIGHBOURS: tuple[Offset, ...] = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
ALL: tuple[Offset, ...] = (OWN, *NEIGHBOURS)


def relative_position_index(window: int, *, device: torch.device) -> Tensor:
    """Return (w², 9w²) rows of the ((4w−1)², h) bias table, for a chunk's queries and the keys of 3×3 chunks.

    The row for Δ = query − key position is (Δr + 2w − 1)(4w − 1) + (Δc + 2w − 1) (paper, section 3.1).
    """
    steps = relative_steps(window, device=device) + 2 * window - 1  # (w, 3w), from 0 to 4w − 2
    rows = steps[:, None, :, None] * (4 * window - 1)
    index = rows + steps[None, :, None, :]  # (w, w, 3w, 3w): query row and column, key row and column
    return index.reshape(window**2, 9 * window**2)


def within_window(window: int, *, device: torch.device) -> Tensor:
    """Return (w², 9w²) booleans, true where |Δr| ≤ w and |Δc| ≤ w: the keys of an "exact" window."""
    near = relative_steps(window, device=device).abs() <= window  # (w, 3w)
    return (near[:, None, :, None] & near[None, :, None, :]).reshape(window**2, 9 * window**2)


def relative_steps(window: int, *, device: torch.device) -> Tensor:
    """Return (w, 3w) differences query − key along one axis, from −(2w − 1) to 2w − 1."""
    queries = torch.arange(window, device=device)
    keys = torch.arange(-window, 2 * window, device=device)
    return queries[:, None] - keys[None, :]


Span = tuple[int, int]  # first and last chunk, as offsets from a query's own chunk
Range = tuple[int, int]  # first position and one past the last


@dataclass(frozen=True)
class Run:
    """Neighbouring chunks of one axis whose queries and keys are laid out alike.

    Attributes:
        first: Number of the first chunk.
        count: How many chunks.
        queries: Tokens in each of them.
        keys: For each span, the range of key positions relative to the chunk's first token; empty where it is
            off the map.
    """

    first: int
    count: int
    queries: int
    keys: tuple[Range, ...]


def axis_runs(length: int, window: int, spans: Sequence[Span], *, keys: Range) -> list[Run]:
    """Split an axis into runs of like chunks: first, inner and last ones, as they lack different neighbours.

    Args:
        length: Queries on the axis.
        window: Side of a chunk.
        spans: Chunks that each chunk sees, as (first, last) offsets from it.
        keys: Range of positions that hold keys: [0, length), or further where the map was extended to wrap around.
    """

    def layout(chunk: int) -> tuple[int, tuple[Range, ...]]:
        start = chunk * window
        seen = []
        for first, last in spans:
            begin = max(keys[0], start + first * window)
            end = min(keys[1], start + (last + 1) * window)
            seen.append((begin - start, max(begin, end) - start))
        return min(window, length - start), tuple(seen)

    runs, first = [], 0
    for (queries, seen), group in itertools.groupby(map(layout, range(-(-length // window)))):
        count = sum(1 for _ in group)
        runs.append(Run(first=first, count=count, queries=queries, keys=seen))
        first += count
    return runs


@dataclass(frozen=True)
class Region:
    """A rectangle of chunks, `rows` × `columns`, that all see keys in the same rectangles around them.

    Attributes:
        rows: The run of chunk rows.
        columns: The run of chunk columns.
        keys: (rows, columns) ranges of each rectangle of keys, relative to a chunk's top left token.
    """

    rows: Run
    columns: Run
    keys: tuple[tuple[Range, Range], ...]


def regions(
    size: tuple[int, int], window: int, offsets: Sequence[Offset], *, keys: tuple[Range, Range]
) -> Iterator[Region]:
    """Cut the chunks of a map of (height, width) `size` into regions.

    `offsets` are the chunks that each chunk sees; `keys` are the rows and columns that hold keys (see `axis_runs`).
    """
    row_spans, column_spans = zip(*_spans(offsets), strict=True)
    for rows in axis_runs(size[0], window, row_spans, keys=keys[0]):
        for columns in axis_runs(size[1], window, column_spans, keys=keys[1]):
            rectangles = zip(rows.keys, columns.keys, strict=True)
            yield Region(rows, columns, tuple((r, c) for r, c in rectangles if r[0] < r[1] and c[0] < c[1]))


def _spans(offsets: Iterable[Offset]) -> list[tuple[Span, Span]]:
    """Return the rectangles of chunks that `offsets` cover: one for all nine, else one for each."""
    if set(offsets) == set(ALL):
        return [((-1, 1), (-1, 1))]
    return [((row, row), (column, column)) for row, column in offsets]
