"""Calling the compiled kernel with tensors.

B batch, H×W map, H'×W' map of keys, h heads, d head width, G global tokens, w window
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vision_longformer.attention.fused import build
from vision_longformer.attention.geometry import Offset
from vision_longformer.attention.windows import Windows, check_windows, refuse_large_biases

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
        ("num_threads", _Integer),
        *[(name, _Pointer) for name in ("query", "key_value", "global_key_value", "table", "global_bias", "valid")],
        ("out", _Pointer),
    )


class _Gradients(ctypes.Structure):
    """The same fields in the same order as `Gradients` in backward.cpp."""

    _fields_ = (
        ("strides", _Integer * 4),
        *[(name, _Pointer) for name in ("result", "query", "key_value", "global_key_value", "table", "global_bias")],
    )


def is_supported(windows: Windows) -> bool:
    """Tell whether the kernel can be used: for what is computed, and on this machine, for which it may be compiled."""
    query = windows.query
    if query.device.type != "cpu" or query.dtype not in DTYPES or query.numel() == 0:
        return False
    offsets = windows.offsets
    if offsets.ndim != 2 or offsets.shape[1] != 2 or offsets.is_floating_point():
        return False
    return _rows_by_column(windows.chunks) is not None and build.kernel() is not None


def fused_windowed_attention(windows: Windows) -> Tensor:
    """Attend from map queries, where `is_supported`; without a formula for gradients.

    Returns:
        (B, H, W, h, d), contiguous, in the type of the queries; computed in float32. Queries without a key get zeros.

    Raises:
        MemoryError: There is no memory for what each thread keeps.
        ValueError: The tensors do not fit together.
    """
    call = _Call(windows)
    out = torch.empty_like(windows.query, memory_format=torch.contiguous_format)
    if out.numel() == 0:
        return out
    call.run(build.FORWARD, out=out)
    return out


def fused_windowed_attention_backward(
    grad: Tensor, windows: Windows
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of `fused_windowed_attention`, where `is_supported`.

    Args:
        grad: (B, H, W, h, d) gradient of the result, of the same type.
        windows: As there.

    Returns:
        Gradients of query, of key_value, of global_key_value, of the table and of global_bias, contiguous; None for
        those that are not given. That of query has its type, the others are float32.

    Raises:
        MemoryError: There is no memory for what each thread keeps.
        ValueError: The tensors do not fit together.
    """
    query, key_value, global_key_value, table, global_bias, *_ = windows
    call = _Call(windows)
    if (grad.shape, grad.dtype, grad.device) != (query.shape, query.dtype, query.device):
        raise ValueError(f"windowed attention: gradient of {grad.dtype} {tuple(grad.shape)}, unlike the queries")
    batch, height, _, heads, head_width = query.shape
    num_global, side = global_key_value.shape[1], 4 * windows.window - 1
    units = (batch, heads, -(-height // windows.window))
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    of_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    of_key_value = torch.zeros(key_value.shape, dtype=torch.float32)
    of_global = torch.zeros(*units, num_global, 2, head_width, dtype=torch.float32)
    of_table = None if table is None else torch.zeros(*units, side, side, dtype=torch.float32)
    of_global_bias = None if global_bias is None else torch.zeros(*units, num_global, dtype=torch.float32)
    gradients = _Gradients(
        strides=grad.stride()[:-1],
        result=grad.data_ptr(),
        query=of_query.data_ptr(),
        key_value=of_key_value.data_ptr(),
        global_key_value=of_global.data_ptr(),
        table=_address(of_table),
        global_bias=_address(of_global_bias),
    )
    if query.numel():
        call.run(build.BACKWARD, ctypes.byref(gradients))
    if of_table is not None:
        of_table = of_table.sum(dim=(0, 2)).flip(-1).flatten(1).t()  # ((4w − 1)², h)
        # not `contiguous`, which leaves the strides of a single head as they are: data-parallel training warns of them
        of_table = of_table.clone(memory_format=torch.contiguous_format)
    if of_global_bias is not None:
        of_global_bias = of_global_bias.sum(dim=(0, 2))
    return of_query, of_key_value, of_global.sum(dim=2).permute(0, 2, 3, 1, 4).contiguous(), of_table, of_global_bias


class _Call:
    """What the kernel is given, and the tensors whose addresses it is given, which live as long as this."""

    def __init__(self, windows: Windows) -> None:
        _check(windows)
        library, rows = build.kernel(), _rows_by_column(windows.chunks)
        if library is None or rows is None:
            raise ValueError("the kernel cannot be used here, see `is_supported`")
        self._library = library
        query, key_value, global_key_value = (x if x.stride(-1) == 1 else x.contiguous() for x in windows[:3])
        table = _visible_table(windows.table, window=windows.window, exact=windows.exact).contiguous()
        global_bias = None if windows.global_bias is None else windows.global_bias.float().contiguous()
        valid = None if windows.valid is None else windows.valid.contiguous()
        self._tensors = (query, key_value, global_key_value, table, global_bias, valid)
        batch, height, width, heads, head_width = query.shape
        self._arguments = _Arguments(
            batch=batch,
            height=height,
            width=width,
            heads=heads,
            head_width=head_width,
            num_global=global_key_value.shape[1],
            window=windows.window,
            key_height=key_value.shape[1],
            key_width=key_value.shape[2],
            top=windows.top,
            left=windows.left,
            num_table_heads=table.shape[1],
            first_rows=tuple(first for first, _ in rows),
            last_rows=tuple(last for _, last in rows),
            query_strides=query.stride()[:-1],
            key_value_strides=key_value.stride()[:-1],
            global_key_value_strides=global_key_value.stride()[:-1],
            is_bfloat16=query.dtype == torch.bfloat16,
            num_threads=torch.get_num_threads(),
            query=query.data_ptr(),
            key_value=key_value.data_ptr(),
            global_key_value=global_key_value.data_ptr(),
            table=table.data_ptr(),
            global_bias=_address(global_bias),
            valid=_address(valid),
        )

    def run(self, function: str, *more: Any, out: Tensor | None = None) -> None:
        self._arguments.out = _address(out)
        if getattr(self._library, function)(ctypes.byref(self._arguments), *more):
            raise MemoryError("windowed attention: no memory for the threads' buffers")


def _check(windows: Windows) -> None:
    """Refuse what the kernel cannot compute, or would read or write beyond.

    Raises:
        ValueError: Says what.
    """
    query, key_value = windows.query, windows.key_value
    if query.device.type != "cpu" or query.dtype not in DTYPES:
        raise ValueError(f"windowed attention: the kernel takes no {query.dtype} on {query.device}")
    check_windows(windows)
    rows, columns = (min(3 * windows.window, side) for side in key_value.shape[1:3])
    heads = 1 if windows.table is None else query.shape[3]
    refuse_large_biases(windows.window, 4 * heads * (windows.window**2 * rows * columns + (4 * windows.window) ** 2))


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


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
    table = torch.zeros(side**2, 1, dtype=torch.float32) if table is None else table.float()
    if exact:
        far = torch.arange(side).sub(2 * window - 1).abs() > window
        table = table.masked_fill((far[:, None] | far[None, :]).view(-1, 1), float("-inf"))
    return table
