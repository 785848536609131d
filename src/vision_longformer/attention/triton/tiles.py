"""What the kernels of windowed attention share: where tokens are, how tiles are read, the running softmax.

This file is compiled by Triton, as are `forward` and `backward`. Everything is written once for all of them:

chunk row, row    row of chunks, row of tokens; columns likewise. Positions are counted from the first query: where the
                  map of keys is larger, its own first row is −top, and its first column −left.
rectangle         tokens of the chunks around one, or of one chunk, cut where the map ends
tile              some tokens of a rectangle, in reading order
size, masks       see `arguments.Size` and `arguments.Masks`; `own` is (height, width) of an image's own map
C                 see `arguments.Constants`
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)  # exp2 is an instruction, exp is not
INFINITY = tl.constexpr(float("inf"))


# --- where tokens are -----------------------------------------------------------------------------------------------


@triton.jit
def program(heads, chunks, C: tl.constexpr):
    """Tell (image, head, chunk, part of the chunk) of this program. Heads, which lie side by side, run together."""
    number = tl.program_id(0)
    head = number % heads
    number = number // heads
    part = number % C.parts
    number = number // C.parts
    return number // chunks, head, number % chunks, part


@triton.jit
def image_size(masks, image, size):
    """Return (height, width) of an image's own map."""
    height, width = size.height, size.width
    if masks.sizes is not None:
        height = tl.load(masks.sizes + 2 * image).to(tl.int32)
        width = tl.load(masks.sizes + 2 * image + 1).to(tl.int32)
    return height, width


@triton.jit
def drawn_offset(drawn):
    """Return (row, column) of the neighbour that was drawn, a number in `geometry.NEIGHBOURS`."""
    number = tl.load(drawn).to(tl.int32)
    number += (number >= 4).to(tl.int32)  # in the order of 3×3, without the middle
    return number // 3 - 1, number % 3 - 1


@triton.jit
def span(chunk, ACROSS: tl.constexpr, begin, stop, length, C: tl.constexpr):
    """Return the positions, from one up to another, of a chunk of an axis, or of three around it.

    They lie between `begin` and `stop`. On cyclic maps of `length` they go on beyond the edges, if three chunks or
    more are there.
    """
    low = (chunk - ACROSS // 2) * C.window
    high = low + ACROSS * C.window
    if C.cyclic:
        wraps = length > 2 * C.window
        low = tl.where(wraps, low, tl.maximum(low, 0))
        high = tl.where(wraps, high, tl.minimum(high, length))
    else:
        low = tl.maximum(low, begin)
        high = tl.minimum(high, stop)
    return low, tl.maximum(low, high)


@triton.jit
def rectangle(number, chunk_row, chunk_column, SIGN: tl.constexpr, rows, columns, own, masks, C: tl.constexpr):
    """Return (first row, first column, columns, tokens) of what a chunk and its neighbours cover.

    Rectangle 0 lies around the chunk, rectangle 1 around its neighbour that was drawn, or with SIGN −1 around the one
    that has drawn it. `rows` and `columns` are positions from which and up to which there is a map.
    """
    if number == 1:
        row_offset, column_offset = drawn_offset(masks.drawn)
        chunk_row, chunk_column = chunk_row + SIGN * row_offset, chunk_column + SIGN * column_offset
    low, high = span(chunk_row, C.across, rows[0], rows[1], own[0], C)
    begin, stop = span(chunk_column, C.across, columns[0], columns[1], own[1], C)
    return low, begin, tl.maximum(stop - begin, 1), (high - low) * (stop - begin)


@triton.jit
def tile(start, low, left, columns, count, TILE: tl.constexpr):
    """Return rows and columns of a tile of a rectangle, and what of the tile is in it; the rest is at its corner."""
    number = start + tl.arange(0, TILE)
    there = number < count
    number = tl.where(there, number, 0)
    return low + number // columns, left + number % columns, there


@triton.jit
def chunk_tile(chunk_row, chunk_column, part, TILE: tl.constexpr, C: tl.constexpr):
    """Return the same of the part of a chunk that a program has."""
    return tile(part * TILE, chunk_row * C.window, chunk_column * C.window, C.window, C.window * C.window, TILE)


@triton.jit
def place(position, length, C: tl.constexpr):
    """Return where a position on an axis is on the map; not below `length` where nothing is."""
    if C.cyclic:
        whole = (length + C.window - 1) // C.window * C.window
        position = (position + whole) % whole
    return position


@triton.jit
def real_tokens(image, row, column, there, own, masks, size, C: tl.constexpr):
    """Return where positions that are `there` are on the map, rows and columns, and which hold something real."""
    row, column = place(row, own[0], C), place(column, own[1], C)
    if C.cyclic:
        there = there & (row < own[0]) & (column < own[1])
    return row, column, unmasked(image, row, column, there, masks, size)


@triton.jit
def unmasked(image, row, column, there, masks, size):
    """Tell which of the places that are `there` on the map the mask, if any, says to hold something real."""
    if masks.valid is not None:
        row, column = row + size.top, column + size.left
        at = (image.to(tl.int64) * size.key_height + row) * size.key_width + column
        there = there & (tl.load(masks.valid + at, mask=there, other=0) != 0)
    return there


@triton.jit
def query_tile(image, chunk_row, chunk_column, part, masks, size, C: tl.constexpr):
    """Return rows and columns of a program's queries, which of them are on the map, and which are real."""
    row, column, on_map = chunk_tile(chunk_row, chunk_column, part, C.query_tile, C)
    on_map = on_map & (row < size.height) & (column < size.width)
    return row, column, on_map, unmasked(image, row, column, on_map, masks, size)


# --- memory ---------------------------------------------------------------------------------------------------------


@triton.jit
def read(pointer, at, there, C: tl.constexpr):
    """Read (n, d) rows of a head, zeros where nothing is `there`."""
    channel = tl.arange(0, C.padded)
    mask = there[:, None]
    if C.width < C.padded:
        mask = mask & (channel < C.width)[None, :]
    return tl.load(pointer + at[:, None] + channel[None, :], mask=mask, other=0.0)


@triton.jit
def write(pointer, at, there, x, C: tl.constexpr):
    """Write (n, d) rows of a head where something is `there`."""
    channel = tl.arange(0, C.padded)
    mask = there[:, None]
    if C.width < C.padded:
        mask = mask & (channel < C.width)[None, :]
    tl.store(pointer + at[:, None] + channel[None, :], x.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def read_queries(queries, image, head, row, column, there, C: tl.constexpr):
    """Read (n, d) queries; offsets go beyond 2³¹ on the largest maps, as in all that follows."""
    at = row.to(tl.int64) * queries.row + column.to(tl.int64) * queries.column
    return read(queries.data + image.to(tl.int64) * queries.image + head * queries.head, at, there, C)


@triton.jit
def read_keys(keys, image, head, row, column, there, size, C: tl.constexpr):
    """Read (n, d) keys, and values."""
    at = (row + size.top).to(tl.int64) * keys.row + (column + size.left).to(tl.int64) * keys.column
    of_head = keys.data + image.to(tl.int64) * keys.image + head * keys.head
    return read(of_head, at, there, C), read(of_head + keys.to_value, at, there, C)


@triton.jit
def read_global_keys(keys, image, head, start, C: tl.constexpr):
    """Read (n, d) keys and values of some global tokens; return their numbers, and which there are, too."""
    token = start + tl.arange(0, C.global_tile)
    there = token < C.num_global
    at = token.to(tl.int64) * keys.token
    of_head = keys.data + image.to(tl.int64) * keys.image + head * keys.head
    return token, there, read(of_head, at, there, C), read(of_head + keys.to_value, at, there, C)


@triton.jit
def result_at(image, head, row, column, size, C: tl.constexpr):
    """Return where results of queries are in contiguous (B, H, W, h, d)."""
    return (((image.to(tl.int64) * size.height + row) * size.width + column) * size.heads + head) * C.width


@triton.jit
def sum_at(image, head, row, column, size):
    """Return where sums of queries are in contiguous (B, h, H, W)."""
    return ((image.to(tl.int64) * size.heads + head) * size.height + row) * size.width + column


@triton.jit
def read_results(grad, logsumexp, grad_dot_out, image, head, row, column, there, size, C: tl.constexpr):
    """Read what the backward pass knows of queries: (n, d) gradients, and two sums; the first as of powers of 2."""
    at = sum_at(image, head, row, column, size)
    log = tl.load(logsumexp + at, mask=there, other=INFINITY) * LOG2E
    total = tl.load(grad_dot_out + at, mask=there, other=0.0)
    return read(grad, result_at(image, head, row, column, size, C), there, C), log, total


# --- attention ------------------------------------------------------------------------------------------------------


@triton.jit
def product(a, b, C: tl.constexpr):
    """Multiply matrices, the second one's type for both."""
    return tl.dot(a.to(b.dtype), b, input_precision=C.precision, out_dtype=C.accurate)


@triton.jit
def global_scores(q, k, global_bias, head, token, there, scale, C: tl.constexpr):
    """Return the scores of queries and global keys."""
    scores = product(q, tl.trans(k), C) * scale
    if global_bias is not None:
        bias = tl.load(global_bias + head * C.num_global + token, mask=there, other=0.0)
        scores += bias.to(C.accurate)[None, :]
    return scores


@triton.jit
def read_biases(table, head, query_row, query_column, key_row, key_column, C: tl.constexpr):
    """Read biases of tokens that see each other from (h, (4w − 1)²), see `geometry.relative_position_index`."""
    SIDE: tl.constexpr = 4 * C.window - 1
    middle: tl.constexpr = (2 * C.window - 1) * (SIDE + 1)
    index = query_row * SIDE + query_column + middle - (key_row * SIDE + key_column)
    return tl.load(table + head * SIDE * SIDE + index).to(C.accurate)


@triton.jit
def near(query_row, query_column, key_row, key_column, C: tl.constexpr):
    """Tell which tokens an exact window lets see each other."""
    row, column = query_row - key_row, query_column - key_column
    return (row <= C.window) & (row >= -C.window) & (column <= C.window) & (column >= -C.window)


@triton.jit
def see(scores, there, table, head, query_row, query_column, key_row, key_column, C: tl.constexpr):
    """Add biases to scores of tokens on the map, and tell which of those that are `there` are seen."""
    if table is not None:
        scores += read_biases(table, head, query_row, query_column, key_row, key_column, C)
    if C.exact:
        there = there & near(query_row, query_column, key_row, key_column, C)
    return scores, there


@triton.jit
def look(q, row, column, start, seen_from, keys, table, image, head, own, masks, size, scale, C: tl.constexpr):
    """Let queries look at a tile of a rectangle of keys: return these, values, scores, and which are seen."""
    low, begin, columns, count = seen_from
    k_row, k_column, there = tile(start, low, begin, columns, count, C.key_tile)
    at_row, at_column, there = real_tokens(image, k_row, k_column, there, own, masks, size, C)
    k, v = read_keys(keys, image, head, at_row, at_column, there, size, C)
    scores = product(q, tl.trans(k), C) * scale
    positions = (row[:, None], column[:, None], k_row[None, :], k_column[None, :])
    scores, seen = see(scores, there[None, :], table, head, *positions, C)
    return k, v, scores, seen


@triton.jit
def add_keys(largest, total, gathered, scores, value, C: tl.constexpr):
    """Take more keys into a running softmax.

    Args:
        largest: (m,) largest score so far.
        total: (m,) sum of exp(score − largest).
        gathered: (m, d) sum of exp(score − largest) · value.
        scores: (m, n), −inf at what is not seen.
        value: (n, d).
        C: Constants.
    """
    new = tl.maximum(largest, tl.max(scores, 1))
    base = tl.where(new == -INFINITY, 0.0, new) * LOG2E
    weights = tl.exp2(scores * LOG2E - base[:, None])
    shrink = tl.exp2(largest * LOG2E - base)
    total = total * shrink + tl.sum(weights, 1)
    gathered = gathered * shrink[:, None] + product(weights, value, C)
    return new, total, gathered
