"""The gradient of the biases of relative positions, without two programs that add to one number.

scores_backward    a tile of the scores of a chunk stays, chunks pass by: their gradient, summed over a share of them.
table_backward     what a row of the bias table gathers of that, over shares and over queries.
"""

import triton
import triton.language as tl

from vision_longformer.attention.triton.tiles import (
    INFINITY,
    LOG2E,
    SIZES,
    chunk_tile,
    drawn_offset,
    image_size,
    is_valid,
    near,
    place,
    product,
    read,
    read_table,
    rows_at,
    span,
    table_index,
    tile,
)


@triton.jit(do_not_specialize=[*SIZES, "all_chunks"])
def scores_backward(
    query,
    key_value,
    table,
    valid,
    sizes,
    drawn,
    logsumexp,
    grad,
    grad_dot_out,
    grad_scores,
    height,
    width,
    key_height,
    key_width,
    top,
    left,
    chunk_columns,
    chunks,
    heads,
    all_chunks,
    query_image,
    query_row,
    query_column,
    query_head,
    key_image,
    key_row,
    key_column,
    key_to_value,
    key_head,
    scale,
    WINDOW: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    QUERY_TILE: tl.constexpr,
    KEY_TILE: tl.constexpr,
    PARTS: tl.constexpr,
    KEY_PARTS: tl.constexpr,
    ACROSS: tl.constexpr,
    DRAWN: tl.constexpr,
    MASKED: tl.constexpr,
    SIZED: tl.constexpr,
    CYCLIC: tl.constexpr,
    EXACT: tl.constexpr,
    ACCURATE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write a tile of `grad_scores`, (shares, heads, w², 9w²), summed over the chunks of all images in a share."""
    program = tl.program_id(0)
    head = tl.program_id(1)
    share = tl.program_id(2)
    q_row, q_column, q_there = chunk_tile(0, 0, program // KEY_PARTS, WINDOW, QUERY_TILE)
    k_first = (program % KEY_PARTS) * KEY_TILE
    k_row, k_column, k_there = tile(k_first, -WINDOW, -WINDOW, 3 * WINDOW, 9 * WINDOW * WINDOW, KEY_TILE)
    chunk_of_row, chunk_of_column = (k_row + WINDOW) // WINDOW - 1, (k_column + WINDOW) // WINDOW - 1
    if ACROSS == 1:
        looked_at = (chunk_of_row == 0) & (chunk_of_column == 0)
        if DRAWN:
            row_offset, column_offset = drawn_offset(drawn)
            looked_at = looked_at | ((chunk_of_row == row_offset) & (chunk_of_column == column_offset))
        k_there = k_there & looked_at
    seen = q_there[:, None] & k_there[None, :]
    if EXACT:
        seen = seen & near(q_row[:, None], q_column[:, None], k_row[None, :], k_column[None, :], WINDOW)
    index = table_index(q_row[:, None], q_column[:, None], k_row[None, :], k_column[None, :], WINDOW)
    bias = read_table(table, head, index, WINDOW).to(ACCURATE)
    bias = tl.where(seen, bias, -INFINITY)

    gathered = tl.zeros([QUERY_TILE, KEY_TILE], ACCURATE)
    end = tl.where(tl.max(k_there.to(tl.int32), 0) > 0, all_chunks, 0)  # nothing of the tile may be seen
    for number in range(share, end, tl.num_programs(2)):
        image = number // chunks
        chunk_row, chunk_column = number % chunks // chunk_columns, number % chunks % chunk_columns
        own_height, own_width = image_size(sizes, image, height, width, SIZED)
        row, column = chunk_row * WINDOW + q_row, chunk_column * WINDOW + q_column
        real = q_there & (row < height) & (column < width)
        if MASKED:
            real = is_valid(valid, image, row + top, column + left, key_height, key_width, real)
        # of the keys: what is on the map, or on which part of it they are continued
        at_row, at_column = chunk_row * WINDOW + k_row, chunk_column * WINDOW + k_column
        low, high = span(chunk_row - 1, 3, -top, key_height - top, own_height, WINDOW, CYCLIC)
        begin, stop = span(chunk_column - 1, 3, -left, key_width - left, own_width, WINDOW, CYCLIC)
        there = k_there & (at_row >= low) & (at_row < high) & (at_column >= begin) & (at_column < stop)
        at_row = place(at_row, own_height, WINDOW, CYCLIC)
        at_column = place(at_column, own_width, WINDOW, CYCLIC)
        if CYCLIC:
            there = there & (at_row < own_height) & (at_column < own_width)
        if MASKED:
            there = is_valid(valid, image, at_row + top, at_column + left, key_height, key_width, there)
        queries = query + image.to(tl.int64) * query_image + head * query_head
        q = read(queries, rows_at(row, column, query_row, query_column), real, WIDTH, PADDED)
        to = ((image.to(tl.int64) * height + row) * width + column) * heads + head
        d = read(grad, to * WIDTH, real, WIDTH, PADDED)
        at = ((image.to(tl.int64) * heads + head) * height + row) * width + column
        log = tl.load(logsumexp + at, mask=real, other=INFINITY) * LOG2E
        total = tl.load(grad_dot_out + at, mask=real, other=0.0)
        keys = key_value + image.to(tl.int64) * key_image + head * key_head
        at = rows_at(at_row + top, at_column + left, key_row, key_column)
        k = read(keys, at, there, WIDTH, PADDED)
        v = read(keys + key_to_value, at, there, WIDTH, PADDED)
        scores = product(q, tl.trans(k), ACCURATE, PRECISION) * scale + bias
        weights = tl.where(there[None, :], tl.exp2(scores * LOG2E - log[:, None]), 0.0)
        gathered += weights * (product(d, tl.trans(v), ACCURATE, PRECISION) - total[:, None])

    q_number = (program // KEY_PARTS) * QUERY_TILE + tl.arange(0, QUERY_TILE)
    k_number = k_first + tl.arange(0, KEY_TILE)
    rows = ((share * heads + head).to(tl.int64) * WINDOW * WINDOW + q_number) * 9 * WINDOW * WINDOW
    inside = (q_number < WINDOW * WINDOW)[:, None] & (k_number < 9 * WINDOW * WINDOW)[None, :]
    tl.store(grad_scores + rows[:, None] + k_number[None, :], gathered, mask=inside)


@triton.jit(do_not_specialize=["shares", "heads"])
def table_backward(
    grad_scores, grad_table, shares, heads, WINDOW: tl.constexpr, ROWS: tl.constexpr, QUERY_TILE: tl.constexpr
):
    """Write some rows of `grad_table`, ((4w − 1)², heads): sums over queries and over shares of `grad_scores`."""
    SIDE: tl.constexpr = 4 * WINDOW - 1
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    head = tl.program_id(1)
    row_step, column_step = row // SIDE - (2 * WINDOW - 1), row % SIDE - (2 * WINDOW - 1)
    gathered = tl.zeros([ROWS], grad_scores.dtype.element_ty)
    for share in range(0, shares):
        of_head = grad_scores + (share * heads + head).to(tl.int64) * WINDOW * WINDOW * 9 * WINDOW * WINDOW
        for start in range(0, WINDOW * WINDOW, QUERY_TILE):
            q = start + tl.arange(0, QUERY_TILE)
            key_row = (q // WINDOW)[None, :] - row_step[:, None] + WINDOW  # in the square of 3w×3w keys
            key_column = (q % WINDOW)[None, :] - column_step[:, None] + WINDOW
            there = (q < WINDOW * WINDOW)[None, :] & (row < SIDE * SIDE)[:, None]
            there = there & (key_row >= 0) & (key_row < 3 * WINDOW) & (key_column >= 0) & (key_column < 3 * WINDOW)
            at = q[None, :] * 9 * WINDOW * WINDOW + key_row * 3 * WINDOW + key_column
            gathered += tl.sum(tl.load(of_head + at, mask=there, other=0.0), 1)
    at = row.to(tl.int64) * heads + head
    tl.store(grad_table + at, gathered.to(grad_table.dtype.element_ty), mask=row < SIDE * SIDE)
