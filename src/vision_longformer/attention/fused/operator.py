"""Calling the compiled kernel with tensors.

B batch, H×W map, H'×W' map of keys, h heads, d head width, G global tokens, w window
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from vision_longformer.attention.fused import build
from vision_longformer.attention.geometry import Offset

DTYPES = (torch.float32, torch.bfloat16)

_NO_ROWS = (0, -1)  # first and last of no rows

_Integer = ctypes.c_int64
_Pointer = ctypes.c_void_p


class _Arguments(ctypes.Structure):
    """The same fields in the same order as `Arguments` in layout.h."""

    _fields_ = (
        *[(name, _Integer) for name in ("batch", "height", "width", "heads", "head_width", "num_global", "window")],
        *[(name, _Integer) for name in ("key_height", "key_width", "top", "left", "num_table_heads")],
        ("first_rows", _Integer * 3),
        ("last_rows", _Integer * 3),
        ("query_strides", _Integer * 4),
        ("key_value_strides", _Integer * 5),
        ("global_key_value_strides", _Integer * 4),
        ("is_bfloat16", _Integer),
        *[(name, _Pointer) for name in ("query", "key_value", "global_key_value", "table", "global_bias", "valid")],
        ("out", _Pointer),
    )


def is_supported(query: Tensor, offsets: Sequence[Offset]) -> bool:
    """Tell whether the kernel can be used: for what is computed, and on this machine, for which it may be compiled."""
    if query.device.type != "cpu" or query.dtype not in DTYPES or query.numel() == 0:
        return False
    return _rows_by_column(offsets) is not None and build.kernel() is not None


def fused_windowed_attention(
    query: Tensor,
    key_value: Tensor,
    global_key_value: Tensor,
    *,
    table: Tensor | None,
    global_bias: Tensor | None,
    valid: Tensor | None,
    offsets: Sequence[Offset],
    window: int,
    top: int,
    left: int,
    exact: bool,
) -> Tensor:
    """Attend from map queries, where `is_supported`; without a formula for gradients.

    Args:
        query: (B, H, W, h, d) with any strides.
        key_value: (B, H', W', 2, h, d): H×W from (top, left) on, and what wraps around outside it.
        global_key_value: (B, G, 2, h, d).
        table: ((4w − 1)², h) biases by relative position, or None.
        global_bias: (h, G), or None.
        valid: (B, H', W'), false at keys that nothing may see, whatever they hold; None where all may be seen.
        offsets: (row, column) of the chunks seen.
        window: Side w of a chunk.
        top: Where the queries' first row stands in the map of keys.
        left: The same for the first column.
        exact: Whether only keys up to w rows and w columns away are seen.

    Returns:
        (B, H, W, h, d), contiguous, in the type of `query`; computed in float32. Queries without a key get zeros.

    Raises:
        MemoryError: There is no memory for what each thread keeps.
    """
    library = build.kernel()
    rows = _rows_by_column(offsets)
    if library is None or rows is None:
        raise ValueError("the kernel cannot be used here, see `is_supported`")
    # Contiguous channels are all it needs; `arguments` has addresses only, so the names keep the tensors alive.
    query, key_value, global_key_value = (
        x if x.stride(-1) == 1 else x.contiguous() for x in (query, key_value, global_key_value)
    )
    table = _visible_table(table, window=window, exact=exact).contiguous()
    global_bias = None if global_bias is None else global_bias.float().contiguous()
    valid = None if valid is None else valid.contiguous()
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    batch, height, width, heads, head_width = query.shape
    arguments = _Arguments(
        batch=batch,
        height=height,
        width=width,
        heads=heads,
        head_width=head_width,
        num_global=global_key_value.shape[1],
        window=window,
        key_height=key_value.shape[1],
        key_width=key_value.shape[2],
        top=top,
        left=left,
        num_table_heads=table.shape[1],
        first_rows=tuple(first for first, _ in rows),
        last_rows=tuple(last for _, last in rows),
        query_strides=query.stride()[:-1],
        key_value_strides=key_value.stride()[:-1],
        global_key_value_strides=global_key_value.stride()[:-1],
        is_bfloat16=query.dtype == torch.bfloat16,
        query=query.data_ptr(),
        key_value=key_value.data_ptr(),
        global_key_value=global_key_value.data_ptr(),
        table=table.data_ptr(),
        global_bias=None if global_bias is None else global_bias.data_ptr(),
        valid=None if valid is None else valid.data_ptr(),
        out=out.data_ptr(),
    )
    if getattr(library, build.FUNCTION)(ctypes.byref(arguments)):
        raise MemoryError("windowed attention: no memory for the threads' buffers")
    return out


def _rows_by_column(offsets: Sequence[Offset]) -> list[tuple[int, int]] | None:
    """Return first and last chunk row seen to the left, above and below, to the right; None where rows are missing."""
    result = []
    for side in (-1, 0, 1):
        rows = sorted({row for row, column in offsets if column == side})
        if rows and rows != list(range(rows[0], rows[-1] + 1)):
            return None
        result.append((rows[0], rows[-1]) if rows else _NO_ROWS)
    return result


def _visible_table(table: Tensor | None, *, window: int, exact: bool) -> Tensor:
    """Return ((4w − 1)², h) float32 biases, or ((4w − 1)², 1) zeros without a `table`; −inf where nothing is seen."""
    side = 4 * window - 1
    table = torch.zeros(side**2, 1) if table is None else table.float()
    if exact:
        far = torch.arange(side).sub(2 * window - 1).abs() > window
        table = table.masked_fill((far[:, None] | far[None, :]).view(-1, 1), float("-inf"))
    return table
