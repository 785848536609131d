"""What a call of windowed attention is given, whoever computes it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vision_longformer.attention.geometry import Offset, Range

# The fields of `Windows`, as operators of PyTorch declare them
SCHEMA = (
    "Tensor query, Tensor key_value, Tensor global_key_value, Tensor? table, Tensor? global_bias, Tensor? valid, "
    "Tensor offsets, int window, int top, int left, bool exact"
)


AXES = {
    "query": ("B", "H", "W", "h", "d"),
    "key_value": ("B", "H'", "W'", "2", "h", "d"),
    "global_key_value": ("B", "G", "2", "h", "d"),
    "table": ("(4w − 1)²", "h"),
    "global_bias": ("h", "G"),
    "valid": ("B", "H'", "W'"),
    "offsets": ("n", "2"),
}
NEAR = (-1, 0, 1)  # chunks away along an axis
MAX_BIAS_BYTES = 16 * 2**30


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


def check_windows(windows: Windows) -> None:
    """Refuse what does not fit together, before anything reads beyond the end of a tensor.

    Raises:
        ValueError: A tensor has another shape, type or device than it should, or a number is out of its range.
    """
    query, key_value, global_key_value, table, global_bias, valid, offsets, window, top, left, _ = windows
    for name, axes in AXES.items():
        x: Tensor | None = getattr(windows, name)
        _require(x is None or x.ndim == len(axes), f"{name} has shape {_shape(x)}, not ({', '.join(axes)})")
    _require(query.device.type != "meta", "the queries are on the device meta, and hold no values")
    _require(query.dtype.is_floating_point, f"the queries are {query.dtype}, not of floating point")
    batch, height, width, heads, head_width = query.shape
    key_height, key_width, num_global = *key_value.shape[1:3], global_key_value.shape[1]
    _require(window >= 1, f"a window of {window}")
    seen = offsets.tolist() if not offsets.is_floating_point() and offsets.shape[1] == 2 else []
    good = bool(seen) and all(row in NEAR and column in NEAR for row, column in seen)
    _require(good and len({*map(tuple, seen)}) == len(seen), f"chunks {str(seen)[:60]}, of which each is within one")
    for name, first, size, keys in (("top", top, height, key_height), ("left", left, width, key_width)):
        _require(
            0 <= first <= keys - size, f"key_value has {keys} keys beside the {size} queries from {name}={first} on"
        )
    shapes: dict[str, tuple[int, ...]] = {
        "key_value": (batch, key_height, key_width, 2, heads, head_width),
        "global_key_value": (batch, num_global, 2, heads, head_width),
        "table": ((4 * window - 1) ** 2, heads),
        "global_bias": (heads, num_global),
        "valid": (batch, key_height, key_width),
    }
    for name, shape in shapes.items():
        x = getattr(windows, name)
        if x is not None:
            _require(tuple(x.shape) == shape, f"{name} has shape {_shape(x)}, not {shape}")
            _require(x.device == query.device, f"{name} is on {x.device}, the queries are on {query.device}")
    for name, x in (("key_value", key_value), ("global_key_value", global_key_value)):
        _require(x.dtype == query.dtype, f"{name} is {x.dtype}, the queries are {query.dtype}")
    for name, x in (("table", table), ("global_bias", global_bias)):
        _require(x is None or x.dtype.is_floating_point, f"{name} is not of floating point")
    _require(valid is None or valid.dtype == torch.bool, "valid is not torch.bool")


def refuse_large_biases(window: int, needed: int) -> None:
    """Refuse windows whose biases for every pair of query and key would fill memory.

    Raises:
        ValueError: They need more than `MAX_BIAS_BYTES`.
    """
    _require(needed <= MAX_BIAS_BYTES, f"a window of {window} needs {needed / 1e9:.0f} GB for its biases alone")


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(f"windowed attention: {problem}")


def _shape(x: Tensor | None) -> tuple[int, ...]:
    return () if x is None else tuple(x.shape)
