"""What the kernels of windowed attention share: where tokens are, how tiles are read, the running softmax.

This file is compiled by Triton, as are `forward` and `backward`. Everything is written once for all of them:

chunk row, row    row of chunks, row of tokens; columns likewise. Positions are counted from the first query: where the
                  map of keys is larger, its own first row is −top, and its first column −left.
rectangle         tokens of the chunks around one, or of one chunk, cut where the map ends
tile              some tokens of a rectangle, in reading order
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)  # exp2 is an instruction, exp is not
# Arguments of all kernels that grow with the map: no kernel is compiled anew for some of their values.
SIZES = ("height", "width", "key_height", "key_width", "top", "left", "chunk_columns", "chunks", "heads")
INFINITY = tl.constexpr(float("inf"))


@triton.jit
def program(heads, chunks, PARTS: tl.constexpr):
    """Tell (image, head, chunk, part of the chunk) of this program. Heads, which lie side by side, run together."""
    number = tl.program_id(0)
    head = number % heads
    number = number // heads
    part = number % PARTS
    number = number // PARTS
    return number // chunks, head, number % chunks, part


@triton.jit
def image_size(sizes, image, height, width, SIZED: tl.constexpr):
    """Return (height, width) of an image's own map."""
    if SIZED:
        height = tl.load(sizes + 2 * image).to(tl.int32)
        width = tl.load(sizes + 2 * image + 1).to(tl.int32)
    return height, width


@triton.jit
def drawn_offset(drawn):
    """Return (row, column) of the neighbour that was drawn, a number in `geometry.NEIGHBOURS`."""
    number = tl.load(drawn).to(tl.int32)
    number += (number >= 4).to(tl.int32)  # in the order of 3×3, without the middle
    return number // 3 - 1, number % 3 - 1


@triton.jit
def span(first_chunk, CHUNKS: tl.constexpr, begin, stop, length, WINDOW: tl.constexpr, CYCLIC: tl.constexpr):
    """Return the positions, from one up to another, of some chunks of an axis.

    They lie between `begin` and `stop`. On cyclic maps of `length` they go on beyond the edges, if three chunks or
    more are there.
    """
    low = first_chunk * WINDOW
    high = low + CHUNKS * WINDOW
    if CYCLIC:
        wraps = length > 2 * WINDOW
        low = tl.where(wraps, low, tl.maximum(low, 0))
        high = tl.where(wraps, high, tl.minimum(high, length))
    else:
        low = tl.maximum(low, begin)
        high = tl.minimum(high, stop)
    return low, tl.maximum(low, high)


@triton.jit
def place(position, length, WINDOW: tl.constexpr, CYCLIC: tl.constexpr):
    """Return where a position on an axis is on the map; not below `length` where nothing is."""
    if CYCLIC:
        whole = (length + WINDOW - 1) // WINDOW * WINDOW
        position = (position + whole) % whole
    return position


@triton.jit
def tile(start, low, left, columns, count, TILE: tl.constexpr):
    """Return rows and columns of a tile of a rectangle, and what of the tile is in it; the rest is at its corner."""
    number = start + tl.arange(0, TILE)
    there = number < count
    number = tl.where(there, number, 0)
    return low + number // columns, left + number % columns, there


@triton.jit
def chunk_tile(chunk_row, chunk_column, part, WINDOW: tl.constexpr, TILE: tl.constexpr):
    """Return the same of the part of a chunk that a program has."""
    columns: tl.constexpr = WINDOW
    return tile(part * TILE, chunk_row * WINDOW, chunk_column * WINDOW, columns, WINDOW * WINDOW, TILE)


@triton.jit
def rows_at(row, column, row_stride, column_stride):
    """Return how far the tokens at some rows and columns are from the first one: beyond 2³¹ on the largest maps."""
    return row.to(tl.int64) * row_stride + column.to(tl.int64) * column_stride


@triton.jit
def read(pointer, at, there, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Read (n, d) rows of a head, zeros where nothing is `there`."""
    channel = tl.arange(0, PADDED)
    mask = there[:, None]
    if WIDTH < PADDED:
        mask = mask & (channel < WIDTH)[None, :]
    return tl.load(pointer + at[:, None] + channel[None, :], mask=mask, other=0.0)


@triton.jit
def write(pointer, at, there, x, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Write (n, d) rows of a head where something is `there`."""
    channel = tl.arange(0, PADDED)
    mask = there[:, None]
    if WIDTH < PADDED:
        mask = mask & (channel < WIDTH)[None, :]
    tl.store(pointer + at[:, None] + channel[None, :], x.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def product(a, b, ACCURATE: tl.constexpr, PRECISION: tl.constexpr):
    """Multiply matrices, the second one's type for both."""
    return tl.dot(a.to(b.dtype), b, input_precision=PRECISION, out_dtype=ACCURATE)


@triton.jit
def is_valid(valid, image, row, column, height, width, there):
    """Tell which of the positions that are `there`, on the (B, height, width) map `valid`, hold something real."""
    at = (image.to(tl.int64) * height + row) * width + column
    return there & (tl.load(valid + at, mask=there, other=0) != 0)


@triton.jit
def table_index(query_row, query_column, key_row, key_column, WINDOW: tl.constexpr):
    """Return the rows of the bias table, see `geometry.relative_position_index`, of tokens that see each other."""
    SIDE: tl.constexpr = 4 * WINDOW - 1
    middle: tl.constexpr = (2 * WINDOW - 1) * (SIDE + 1)
    return query_row * SIDE + query_column + middle - (key_row * SIDE + key_column)


@triton.jit
def read_table(table, head, index, WINDOW: tl.constexpr):
    """Read biases of a head from (h, (4w − 1)²) `table`."""
    SIDE: tl.constexpr = 4 * WINDOW - 1
    return tl.load(table + head * SIDE * SIDE + index)


@triton.jit
def near(query_row, query_column, key_row, key_column, WINDOW: tl.constexpr):
    """Tell which tokens an exact window lets see each other."""
    row, column = query_row - key_row, query_column - key_column
    return (row <= WINDOW) & (row >= -WINDOW) & (column <= WINDOW) & (column >= -WINDOW)


@triton.jit
def add_keys(largest, total, gathered, scores, value, ACCURATE: tl.constexpr, PRECISION: tl.constexpr):
    """Take more keys into a running softmax.

    Args:
        largest: (m,) largest score so far.
        total: (m,) sum of exp(score − largest).
        gathered: (m, d) sum of exp(score − largest) · value.
        scores: (m, n), −inf at what is not seen.
        value: (n, d).
        ACCURATE: Type of all sums.
        PRECISION: Of products of float32.
    """
    new = tl.maximum(largest, tl.max(scores, 1))
    base = tl.where(new == -INFINITY, 0.0, new) * LOG2E
    weights = tl.exp2(scores * LOG2E - base[:, None])
    shrink = tl.exp2(largest * LOG2E - base)
    total = total * shrink + tl.sum(weights, 1)
    gathered = gathered * shrink[:, None] + product(weights, value, ACCURATE, PRECISION)
    return new, total, gathered
