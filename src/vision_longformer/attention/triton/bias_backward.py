"""The gradient of the biases of relative positions, without two programs that add to one number.

scores_backward    a tile of the scores of a chunk stays, chunks pass by: their gradient, summed over a share of them.
table_backward     what a row of the bias table gathers of that, over shares and over queries.
"""

import triton
import triton.language as tl

from vision_longformer.attention.triton.arguments import Size
from vision_longformer.attention.triton.tiles import (
    INFINITY,
    LOG2E,
    chunk_tile,
    drawn_offset,
    image_size,
    product,
    read_keys,
    read_queries,
    read_results,
    real_tokens,
    see,
    span,
    tile,
    unmasked,
)


@triton.jit(do_not_specialize=[*Size._fields, "images"])
def scores_backward(
    queries,
    keys,
    table,
    masks,
    logsumexp,
    grad,
    grad_dot_out,
    grad_scores,
    images,
    height,
    width,
    key_height,
    key_width,
    top,
    left,
    heads,
    scale,
    C: tl.constexpr,
):
    """Write a tile of `grad_scores`, (shares, heads, w², 9w²), summed over the chunks of all images in a share."""
    KEYS: tl.constexpr = 9 * C.window * C.window
    KEY_PARTS: tl.constexpr = (KEYS + C.key_tile - 1) // C.key_tile
    size = Size(height, width, key_height, key_width, top, left, heads)
    program = tl.program_id(0)
    head = tl.program_id(1)
    share = tl.program_id(2)
    q_row, q_column, q_there = chunk_tile(0, 0, program // KEY_PARTS, C.query_tile, C)
    k_first = (program % KEY_PARTS) * C.key_tile
    k_row, k_column, k_there = tile(k_first, -C.window, -C.window, 3 * C.window, KEYS, C.key_tile)
    chunk_of_row, chunk_of_column = (k_row + C.window) // C.window - 1, (k_column + C.window) // C.window - 1
    if C.across == 1:
        looked_at = (chunk_of_row == 0) & (chunk_of_column == 0)
        if masks.drawn is not None:
            row_offset, column_offset = drawn_offset(masks.drawn)
            looked_at = looked_at | ((chunk_of_row == row_offset) & (chunk_of_column == column_offset))
        k_there = k_there & looked_at
    bias = tl.zeros([C.query_tile, C.key_tile], C.accurate)
    positions = (q_row[:, None], q_column[:, None], k_row[None, :], k_column[None, :])
    bias, seen = see(bias, q_there[:, None] & k_there[None, :], table, head, *positions, C)
    bias = tl.where(seen, bias, -INFINITY)

    gathered = tl.zeros([C.query_tile, C.key_tile], C.accurate)
    chunk_columns = tl.cdiv(width, C.window)
    chunks = tl.cdiv(height, C.window) * chunk_columns
    end = tl.where(tl.max(k_there.to(tl.int32), 0) > 0, images * chunks, 0)  # nothing of the tile may be seen
    for number in range(share, end, tl.num_programs(2)):
        image = number // chunks
        chunk_row, chunk_column = number % chunks // chunk_columns, number % chunks % chunk_columns
        own = image_size(masks, image, size)
        row, column = chunk_row * C.window + q_row, chunk_column * C.window + q_column
        real = unmasked(image, row, column, q_there & (row < height) & (column < width), masks, size)
        # of the keys: what is on the map, or on which part of it they are continued
        at_row, at_column = chunk_row * C.window + k_row, chunk_column * C.window + k_column
        low, high = span(chunk_row, 3, -top, key_height - top, own[0], C)
        begin, stop = span(chunk_column, 3, -left, key_width - left, own[1], C)
        there = k_there & (at_row >= low) & (at_row < high) & (at_column >= begin) & (at_column < stop)
        at_row, at_column, there = real_tokens(image, at_row, at_column, there, own, masks, size, C)
        q = read_queries(queries, image, head, row, column, real, C)
        d, log, total = read_results(grad, logsumexp, grad_dot_out, image, head, row, column, real, size, C)
        k, v = read_keys(keys, image, head, at_row, at_column, there, size, C)
        scores = product(q, tl.trans(k), C) * scale + bias
        weights = tl.where(there[None, :], tl.exp2(scores * LOG2E - log[:, None]), 0.0)
        gathered += weights * (product(d, tl.trans(v), C) - total[:, None])

    q_number = (program // KEY_PARTS) * C.query_tile + tl.arange(0, C.query_tile)
    k_number = k_first + tl.arange(0, C.key_tile)
    rows = ((share * heads + head).to(tl.int64) * C.window * C.window + q_number) * KEYS
    inside = (q_number < C.window * C.window)[:, None] & (k_number < KEYS)[None, :]
    tl.store(grad_scores + rows[:, None] + k_number[None, :], gathered, mask=inside)


@triton.jit(do_not_specialize=["shares", "heads"])
def table_backward(grad_scores, grad_table, shares, heads, C: tl.constexpr, ROWS: tl.constexpr):
    """Write some rows of `grad_table`, ((4w − 1)², heads): sums over queries and over shares of `grad_scores`."""
    W: tl.constexpr = C.window
    SIDE: tl.constexpr = 4 * W - 1
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    head = tl.program_id(1)
    row_step, column_step = row // SIDE - (2 * W - 1), row % SIDE - (2 * W - 1)
    gathered = tl.zeros([ROWS], grad_scores.dtype.element_ty)
    for share in range(0, shares):
        of_head = grad_scores + (share * heads + head).to(tl.int64) * W * W * 9 * W * W
        for start in range(0, W * W, C.query_tile):
            q = start + tl.arange(0, C.query_tile)
            key_row = (q // W)[None, :] - row_step[:, None] + W  # in the square of 3w×3w keys
            key_column = (q % W)[None, :] - column_step[:, None] + W
            there = (q < W * W)[None, :] & (row < SIDE * SIDE)[:, None]
            there = there & (key_row >= 0) & (key_row < 3 * W) & (key_column >= 0) & (key_column < 3 * W)
            at = q[None, :] * 9 * W * W + key_row * 3 * W + key_column
            gathered += tl.sum(tl.load(of_head + at, mask=there, other=0.0), 1)
    at = row.to(tl.int64) * heads + head
    tl.store(grad_table + at, gathered.to(grad_table.dtype.element_ty), mask=row < SIDE * SIDE)
