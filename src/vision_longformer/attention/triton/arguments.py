"""What kernels are given, in groups, and what they tell each other.

B batch, H×W map of queries, H'×W' map of keys, h heads, d head width, G global tokens, w window
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Queries(NamedTuple):
    """(B, H, W, h, d), with the strides of all axes but the last."""

    data: Any
    image: Any
    row: Any
    column: Any
    head: Any


class Keys(NamedTuple):
    """(B, H', W', 2, h, d) keys and values, likewise."""

    data: Any
    image: Any
    row: Any
    column: Any
    to_value: Any
    head: Any


class GlobalKeys(NamedTuple):
    """(B, G, 2, h, d) keys and values of the global tokens, likewise."""

    data: Any
    image: Any
    token: Any
    to_value: Any
    head: Any


class Masks(NamedTuple):
    """What is seen; each is None where all is.

    Attributes:
        valid: (B, H', W') boolean.
        sizes: (B, 2) integers, only for cyclic windows.
        drawn: (1,) integer, only where not all neighbours are seen.
    """

    valid: Any
    sizes: Any
    drawn: Any


class Constants(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
        num_global: G.
        global_tile: Global tokens that are taken at once.
        window: w.
        width: d.
        padded: d, up to a power of 2.
        query_tile: Queries that a program takes at once.
        key_tile: Keys that it takes at once.
        parts: Of a chunk, each of which has a program of its own.
        across: Rows and columns of chunks that are seen: 3, or 1.
        cyclic: Whether chunks wrap around the edges of each image's own map.
        exact: Whether only keys up to w rows and w columns away are seen.
        accurate: Triton's type of all sums.
        precision: Of products of float32.
    """

    num_global: int
    global_tile: int
    window: int
    width: int
    padded: int
    query_tile: int
    key_tile: int
    parts: int
    across: int
    cyclic: bool
    exact: bool
    accurate: Any
    precision: str


class Size(NamedTuple):
    """Of the maps: arguments of all kernels, for no value of which one is compiled anew.

    Attributes:
        height: H.
        width: W.
        key_height: H'.
        key_width: W'.
        top: Row of the first query in the map of keys.
        left: Column of it.
        heads: h.
    """

    height: int
    width: int
    key_height: int
    key_width: int
    top: int
    left: int
    heads: int
