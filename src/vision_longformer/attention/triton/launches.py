"""What is launched for one call: kernels, grids, arguments. Nothing here reads a tensor, so any device will do.

B batch, H×W map of queries, H'×W' map of keys, h heads, d head width, G global tokens, w window, n programs of an image
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from vision_longformer.attention.triton import backward, bias_backward, forward

# Programs that sum the gradients of biases: as many as the processors of the largest cards keep busy. Chunks are shared
# among them, and each share takes 4 · h · 9w⁴ bytes.
BIAS_PROGRAMS = 1024
TABLE_ROWS = 16  # rows of the bias table that a program sums


@dataclass(frozen=True)
class Settings:
    """What attention is given beside tensors.

    Attributes:
        window: Side w of a chunk.
        around: Whether all 8 chunks around a query's own are seen; else its own, and the one that was drawn if any.
        exact: Whether only keys up to w rows and w columns away are seen.
        cyclic: Whether chunks wrap around the edges of each image's own map. Then H'×W' is H×W.
        top: Where the queries' first row stands in the map of keys.
        left: The same for the first column.
    """

    window: int
    around: bool
    exact: bool
    cyclic: bool
    top: int
    left: int


@dataclass(frozen=True)
class Inputs:
    """The tensors of a call.

    Attributes:
        query: (B, H, W, h, d), channels side by side, as in the next two.
        key_value: (B, H', W', 2, h, d).
        global_key_value: (B, G, 2, h, d).
        table: (h, (4w − 1)²), contiguous as is all that follows, or None.
        global_bias: (h, G), or None.
        valid: (B, H', W') boolean, or None.
        sizes: (B, 2) integers, which only cyclic windows need, or None.
        drawn: (1,) integer, the number in `geometry.NEIGHBOURS` of a chunk that is seen beside the own, or None.
    """

    query: Tensor
    key_value: Tensor
    global_key_value: Tensor
    table: Tensor | None
    global_bias: Tensor | None
    valid: Tensor | None
    sizes: Tensor | None
    drawn: Tensor | None


@dataclass(frozen=True)
class Gradients:
    """What the backward pass writes: gradients, and what is to be summed to some.

    Attributes:
        query: (B, H, W, h, d).
        key_value: (B, H', W', 2, h, d).
        grad_dot_out: (B, h, H, W) sums over channels of the result times its gradient.
        global_parts: (B, n, G, 2, h, d), to be summed over n.
        global_bias_parts: (B, n, G, h), to be summed over B and n; None without such biases.
        scores: (shares, h, w², 9w²); None without a table, as is the next.
        table: ((4w − 1)², h).
    """

    query: Tensor
    key_value: Tensor
    grad_dot_out: Tensor
    global_parts: Tensor
    global_bias_parts: Tensor | None
    scores: Tensor | None
    table: Tensor | None


@dataclass(frozen=True)
class Launch:
    """One kernel, and all that it is given.

    Attributes:
        kernel: Compiled by Triton when it first runs with arguments of these types.
        grid: How many programs run it.
        arguments: By the names of its parameters, constants included.
        num_warps: Warps of a program.
        num_stages: Tiles that are on their way from memory at once.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    num_warps: int
    num_stages: int

    def run(self) -> None:
        """Launch the kernel on the current stream."""
        self.kernel[self.grid](**self.arguments, num_warps=self.num_warps, num_stages=self.num_stages)


def accurate_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type of sums: float32, or float64, which only the interpreter computes."""
    return torch.promote_types(dtype, torch.float32)


class Call:
    """Plans the launches of one call.

    Args:
        inputs: Its tensors.
        settings: The rest.
        precision: Of products of float32: "ieee" or "tf32".
    """

    def __init__(self, inputs: Inputs, settings: Settings, *, precision: str) -> None:
        self._inputs, self._settings = inputs, settings
        query, key_value, window = inputs.query, inputs.key_value, settings.window
        self._batch, self._height, self._width, self._heads, self._head_width = query.shape
        self._key_height, self._key_width = key_value.shape[1:3]
        self._num_global = inputs.global_key_value.shape[1]
        self._chunk_columns = _ceil_div(self._width, window)
        self._chunks = _ceil_div(self._height, window) * self._chunk_columns
        self._padded = max(16, _power_of_2(self._head_width))
        tile, self._tile, self._num_warps, self._num_stages = _tiles(query.dtype, self._padded, precision=precision)
        self._chunk_tile = min(tile, max(16, _power_of_2(window**2)))
        self._parts = _ceil_div(window**2, self._chunk_tile)
        self._shared = {
            **vars(inputs),
            "height": self._height,
            "width": self._width,
            "key_height": self._key_height,
            "key_width": self._key_width,
            "top": settings.top,
            "left": settings.left,
            "chunk_columns": self._chunk_columns,
            "chunks": self._chunks,
            "heads": self._heads,
            **_strides(query, "query_image", "query_row", "query_column", "query_head"),
            **_strides(key_value, "key_image", "key_row", "key_column", "key_to_value", "key_head"),
            **_strides(inputs.global_key_value, "global_image", "global_token", "global_to_value", "global_head"),
            "scale": self._head_width**-0.5,
            "NUM_GLOBAL": self._num_global,
            "GLOBAL_TILE": 16 if self._num_global <= 16 else 32,
            "WINDOW": window,
            "WIDTH": self._head_width,
            "PADDED": self._padded,
            "QUERY_TILE": self._chunk_tile,
            "KEY_TILE": self._tile,
            "PARTS": self._parts,
            "ACROSS": 3 if settings.around else 1,
            "DRAWN": inputs.drawn is not None and not settings.around,
            "BIASED": inputs.table is not None,
            "GLOBAL_BIASED": inputs.global_bias is not None,
            "MASKED": inputs.valid is not None,
            "SIZED": settings.cyclic and inputs.sizes is not None,
            "CYCLIC": settings.cyclic,
            "EXACT": settings.exact,
            "ACCURATE": tl.float64 if query.dtype == torch.float64 else tl.float32,
            "PRECISION": precision,
        }

    def forward(self, *, out: Tensor, logsumexp: Tensor) -> list[Launch]:
        """Return what writes contiguous `out`, (B, H, W, h, d), and `logsumexp`, (B, h, H, W) of the accurate type."""
        return [self._launch(forward.attend, self._by_queries, out=out, logsumexp=logsumexp)]

    def new_gradients(self) -> Gradients:
        """Return memory for what the backward pass writes."""
        query, key_value = self._inputs.query, self._inputs.key_value
        table, global_bias = self._inputs.table, self._inputs.global_bias
        of_image = (self._batch, self._chunks * self._parts)
        of_global = (self._num_global, 2, self._heads, self._head_width)

        def sums(*shape: int) -> Tensor:
            return query.new_empty(shape, dtype=accurate_type(query.dtype))

        tokens = self._settings.window**2
        return Gradients(
            query=torch.empty_like(query, memory_format=torch.contiguous_format),
            key_value=torch.empty_like(key_value, memory_format=torch.contiguous_format),
            grad_dot_out=sums(self._batch, self._heads, self._height, self._width),
            global_parts=sums(*of_image, *of_global),
            global_bias_parts=None if global_bias is None else sums(*of_image, self._num_global, self._heads),
            scores=None if table is None else sums(self._shares, self._heads, tokens, 9 * tokens),
            table=None if table is None else table.new_empty(table.shape[::-1]),
        )

    def backward(self, gradients: Gradients, *, grad: Tensor, out: Tensor, logsumexp: Tensor) -> list[Launch]:
        """Return what writes `gradients` for contiguous `grad`, (B, H, W, h, d), after a forward pass."""
        known = {"logsumexp": logsumexp, "grad": grad, "grad_dot_out": gradients.grad_dot_out}
        of_global = {"grad_global": gradients.global_parts, "grad_global_bias": gradients.global_bias_parts}
        of_queries = {"out": out, "grad_query": gradients.query, **of_global}
        first_row, first_column = (-_ceil_div(x, self._settings.window) for x in self._margins)
        of_keys = {
            "grad_key_value": gradients.key_value,
            "first_row": first_row,
            "first_column": first_column,
            # chunks of keys, in place of those of queries
            "chunk_columns": self._key_chunks[1],
            "chunks": self._key_chunks[0] * self._key_chunks[1],
            "QUERY_TILE": self._tile,
            "KEY_TILE": self._chunk_tile,
        }
        launches = [
            self._launch(backward.queries_backward, self._by_queries, **known, **of_queries),
            self._launch(backward.keys_backward, self._by_keys, **known, **of_keys),
        ]
        if gradients.scores is not None and gradients.table is not None:
            of_scores = {
                "grad_scores": gradients.scores,
                "all_chunks": self._batch * self._chunks,
                "KEY_PARTS": self._key_parts,
            }
            by_tiles = (self._parts * self._key_parts, self._heads, self._shares)
            launches.append(self._launch(bias_backward.scores_backward, by_tiles, **known, **of_scores))
            of_table = {
                "grad_scores": gradients.scores,
                "grad_table": gradients.table,
                "shares": self._shares,
                "ROWS": TABLE_ROWS,
            }
            by_rows = (_ceil_div(len(gradients.table), TABLE_ROWS), self._heads)
            launches.append(self._launch(bias_backward.table_backward, by_rows, **of_table))
        return launches

    def _launch(self, kernel: Any, grid: tuple[int, ...], **arguments: Any) -> Launch:
        """Return a launch of a kernel with what it needs of the arguments that all share, and its own."""
        given = self._shared | arguments
        return Launch(
            kernel=kernel,
            grid=grid,
            arguments={name: given[name] for name in kernel.arg_names},
            num_warps=self._num_warps,
            num_stages=self._num_stages,
        )

    @property
    def _by_queries(self) -> tuple[int]:
        return (self._batch * self._heads * self._chunks * self._parts,)

    @property
    def _by_keys(self) -> tuple[int]:
        rows, columns = self._key_chunks
        return (self._batch * self._heads * rows * columns * self._parts,)

    @property
    def _margins(self) -> tuple[int, int]:
        return self._settings.top, self._settings.left

    @property
    def _key_chunks(self) -> tuple[int, int]:
        """Chunk rows and columns of the map of keys, on the grid of the queries' chunks."""
        lengths = (self._key_height, self._key_width)
        rows, columns = (
            _ceil_div(margin, self._settings.window) + _ceil_div(length - margin, self._settings.window)
            for margin, length in zip(self._margins, lengths, strict=True)
        )
        return rows, columns

    @property
    def _key_parts(self) -> int:
        """Tiles of the keys of 3×3 chunks."""
        return _ceil_div(9 * self._settings.window**2, self._tile)

    @property
    def _shares(self) -> int:
        programs = self._parts * self._key_parts * self._heads
        return max(1, min(self._batch * self._chunks, BIAS_PROGRAMS // programs))


def _tiles(dtype: torch.dtype, padded: int, *, precision: str) -> tuple[int, int, int, int]:
    """Return how many tokens stay and pass by in a program, how many warps it has, how many tiles it loads at once.

    As large as registers allow: with these, none or next to none are kept in memory.
    """
    row_bytes = padded * dtype.itemsize
    return 64 if row_bytes <= 128 else 32, 32, 4, 2


def _strides(x: Tensor, *names: str) -> dict[str, int]:
    """Return strides by name, but for the last one, which is 1."""
    return dict(zip(names, x.stride(), strict=False))


def _ceil_div(number: int, divisor: int) -> int:
    return -(-number // divisor)


def _power_of_2(number: int) -> int:
    """Return the least power of 2 that is not below a number."""
    return 1 << (number - 1).bit_length()
