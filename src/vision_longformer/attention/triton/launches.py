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
from vision_longformer.attention.triton.arguments import Constants, GlobalKeys, Keys, Masks, Queries, Size
from vision_longformer.attention.triton.operator import Inputs

# Programs that sum the gradients of biases: as many as the processors of the largest cards keep busy. Chunks are shared
# among them, and each share takes 4 · h · 9w⁴ bytes.
BIAS_PROGRAMS = 1024
TABLE_ROWS = 16  # rows of the bias table that a program sums
# Tiles are as large as registers allow: with these, none or next to none are kept in memory.
MAX_ROW_BYTES = 128  # of a token's channels, for 64 of a program's tokens to stay; of more, 32 stay
PASSING_TILE = 32  # tokens that pass by at once
NUM_WARPS, NUM_STAGES = 4, 2  # of a program, and tiles that are on their way from memory to it at once


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
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]

    def run(self) -> None:
        """Launch the kernel on the current stream."""
        self.kernel[self.grid](**self.arguments, num_warps=NUM_WARPS, num_stages=NUM_STAGES)


def accurate_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type of sums: float32, or float64, which only the interpreter computes."""
    return torch.promote_types(dtype, torch.float32)


class Call:
    """Plans the launches of one call.

    Args:
        inputs: What it is given.
        precision: Of products of float32: "ieee" or "tf32".
    """

    def __init__(self, inputs: Inputs, *, precision: str) -> None:
        self._inputs = inputs = _packed(inputs)
        query, key_value, of_global, window = inputs.query, inputs.key_value, inputs.global_key_value, inputs.window
        self._batch, height, width, heads, head_width = query.shape
        key_height, key_width = key_value.shape[1:3]
        self._size = Size(height, width, key_height, key_width, inputs.top, inputs.left, heads)
        self._chunks = _ceil_div(height, window) * _ceil_div(width, window)
        padded = max(16, _power_of_2(head_width))
        chunk_tile = 64 if padded * query.dtype.itemsize <= MAX_ROW_BYTES else 32
        chunk_tile = min(chunk_tile, max(16, _power_of_2(window**2)))
        self._constants = Constants(
            num_global=of_global.shape[1],
            global_tile=16 if of_global.shape[1] <= 16 else 32,
            window=window,
            width=head_width,
            padded=padded,
            query_tile=chunk_tile,
            key_tile=PASSING_TILE,
            parts=_ceil_div(window**2, chunk_tile),
            across=3 if inputs.around else 1,
            cyclic=inputs.cyclic,
            exact=inputs.exact,
            accurate=tl.float64 if query.dtype == torch.float64 else tl.float32,
            precision=precision,
        )
        self._shared = {
            "queries": Queries(query, *query.stride()[:-1]),
            "keys": Keys(key_value, *key_value.stride()[:-1]),
            "global_keys": GlobalKeys(of_global, *of_global.stride()[:-1]),
            "table": inputs.table,
            "global_bias": inputs.global_bias,
            "masks": Masks(inputs.valid, inputs.sizes, inputs.drawn),
            **self._size._asdict(),
            "scale": head_width**-0.5,
            "C": self._constants,
        }

    def forward(self, *, out: Tensor, logsumexp: Tensor) -> list[Launch]:
        """Return what writes contiguous `out`, (B, H, W, h, d), and `logsumexp`, (B, h, H, W) of the accurate type."""
        return [self._launch(forward.attend, self._by_queries, out=out, logsumexp=logsumexp)]

    def new_gradients(self) -> Gradients:
        """Return memory for what the backward pass writes."""
        query, key_value, _, table, global_bias = self._inputs[:5]
        num_global, head_width = self._constants.num_global, self._constants.width
        height, width, heads = self._size.height, self._size.width, self._size.heads
        of_image, tokens = (self._batch, self._chunks * self._constants.parts), self._inputs.window**2

        def sums(*shape: int) -> Tensor:
            return query.new_empty(shape, dtype=accurate_type(query.dtype))

        return Gradients(
            query=torch.empty_like(query, memory_format=torch.contiguous_format),
            key_value=torch.empty_like(key_value, memory_format=torch.contiguous_format),
            grad_dot_out=sums(self._batch, heads, height, width),
            global_parts=sums(*of_image, num_global, 2, heads, head_width),
            global_bias_parts=None if global_bias is None else sums(*of_image, num_global, heads),
            scores=None if table is None else sums(self._shares, heads, tokens, 9 * tokens),
            table=None if table is None else table.new_empty(table.shape[::-1]),
        )

    def backward(self, gradients: Gradients, *, grad: Tensor, out: Tensor, logsumexp: Tensor) -> list[Launch]:
        """Return what writes `gradients` for contiguous `grad`, (B, H, W, h, d), after a forward pass."""
        known = {"logsumexp": logsumexp, "grad": grad, "grad_dot_out": gradients.grad_dot_out}
        of_queries = {
            "out": out,
            "grad_query": gradients.query,
            "grad_global": gradients.global_parts,
            "grad_global_bias": gradients.global_bias_parts,
        }
        keys_stay = self._constants._replace(query_tile=self._constants.key_tile, key_tile=self._constants.query_tile)
        of_keys = {"grad_key_value": gradients.key_value, "C": keys_stay}
        launches = [
            self._launch(backward.queries_backward, self._by_queries, **known, **of_queries),
            self._launch(backward.keys_backward, self._by_keys, **known, **of_keys),
        ]
        if gradients.scores is not None and gradients.table is not None:
            of_scores = {"grad_scores": gradients.scores, "images": self._batch}
            by_tiles = (self._score_tiles, self._size.heads, self._shares)
            launches.append(self._launch(bias_backward.scores_backward, by_tiles, **known, **of_scores))
            of_table = {"grad_scores": gradients.scores, "grad_table": gradients.table}
            by_rows = (_ceil_div(len(gradients.table), TABLE_ROWS), self._size.heads)
            constants = {"shares": self._shares, "ROWS": TABLE_ROWS}
            launches.append(self._launch(bias_backward.table_backward, by_rows, **of_table, **constants))
        return launches

    def _launch(self, kernel: Any, grid: tuple[int, ...], **arguments: Any) -> Launch:
        """Return a launch of a kernel with what it needs of the arguments that all share, and its own."""
        given = self._shared | arguments
        return Launch(kernel, grid, {name: given[name] for name in kernel.arg_names})

    @property
    def _by_queries(self) -> tuple[int]:
        return (self._batch * self._size.heads * self._chunks * self._constants.parts,)

    @property
    def _by_keys(self) -> tuple[int]:
        """A program for each part of the chunks of the map of keys, on the grid of the queries' chunks."""
        _, _, height, width, top, left, heads = self._size
        window = self._inputs.window
        rows = _ceil_div(top, window) + _ceil_div(height - top, window)
        columns = _ceil_div(left, window) + _ceil_div(width - left, window)
        return (self._batch * heads * rows * columns * self._constants.parts,)

    @property
    def _score_tiles(self) -> int:
        """Tiles of the scores of a chunk and the keys of 3×3 chunks."""
        return self._constants.parts * _ceil_div(9 * self._inputs.window**2, PASSING_TILE)

    @property
    def _shares(self) -> int:
        return max(1, min(self._batch * self._chunks, BIAS_PROGRAMS // (self._score_tiles * self._size.heads)))


def _packed(inputs: Inputs) -> Inputs:
    """Return inputs as kernels take them.

    Channels of tokens lie side by side, the table is (h, (4w − 1)²), all else is contiguous, and None if not needed.
    """

    def contiguous(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.contiguous()

    query, key_value, of_global = (x if x.stride(-1) == 1 else x.contiguous() for x in inputs[:3])
    return inputs._replace(
        query=query,
        key_value=key_value,
        global_key_value=of_global,
        table=None if inputs.table is None else inputs.table.t().contiguous(),
        global_bias=contiguous(inputs.global_bias),
        valid=contiguous(inputs.valid),
        sizes=contiguous(inputs.sizes) if inputs.cyclic else None,
        drawn=None if inputs.around else inputs.drawn,
    )


def _ceil_div(number: int, divisor: int) -> int:
    return -(-number // divisor)


def _power_of_2(number: int) -> int:
    """Return the least power of 2 that is not below a number."""
    return 1 << (number - 1).bit_length()
