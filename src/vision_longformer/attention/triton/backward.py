"""Gradients of windowed attention. No two programs add to one number, so that results can be repeated to the bit.

With P the weights, D the gradient of the result and S that of the scores, S = P · (D Vᵀ − Σ D·out):

queries_backward   a tile of queries stays, keys pass by: S K. It also gives what its queries add to the gradients of
                   the global tokens and their biases, to be summed over programs, and Σ D·out for the others.
keys_backward      a tile of keys stays, queries pass by: Sᵀ Q, Pᵀ D.

What the biases of relative positions gather of S is in `bias_backward`.
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
    program,
    read,
    read_table,
    rows_at,
    span,
    table_index,
    tile,
    write,
)


@triton.jit(do_not_specialize=SIZES)
def queries_backward(
    query,
    key_value,
    global_key_value,
    table,
    global_bias,
    valid,
    sizes,
    drawn,
    out,
    logsumexp,
    grad,
    grad_dot_out,
    grad_query,
    grad_global,
    grad_global_bias,
    height,
    width,
    key_height,
    key_width,
    top,
    left,
    chunk_columns,
    chunks,
    heads,
    query_image,
    query_row,
    query_column,
    query_head,
    key_image,
    key_row,
    key_column,
    key_to_value,
    key_head,
    global_image,
    global_token,
    global_to_value,
    global_head,
    scale,
    NUM_GLOBAL: tl.constexpr,
    GLOBAL_TILE: tl.constexpr,
    WINDOW: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    QUERY_TILE: tl.constexpr,
    KEY_TILE: tl.constexpr,
    PARTS: tl.constexpr,
    ACROSS: tl.constexpr,
    DRAWN: tl.constexpr,
    BIASED: tl.constexpr,
    GLOBAL_BIASED: tl.constexpr,
    MASKED: tl.constexpr,
    SIZED: tl.constexpr,
    CYCLIC: tl.constexpr,
    EXACT: tl.constexpr,
    ACCURATE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write `grad_query` and `grad_dot_out` of a tile of queries, and its part of the gradients of global tokens."""
    image, head, chunk, part = program(heads, chunks, PARTS)
    chunk_row, chunk_column = chunk // chunk_columns, chunk % chunk_columns
    own_height, own_width = image_size(sizes, image, height, width, SIZED)
    row, column, on_map = chunk_tile(chunk_row, chunk_column, part, WINDOW, QUERY_TILE)
    on_map = on_map & (row < height) & (column < width)
    real = on_map
    if MASKED:
        real = is_valid(valid, image, row + top, column + left, key_height, key_width, on_map)
    queries = query + image.to(tl.int64) * query_image + head * query_head
    q = read(queries, rows_at(row, column, query_row, query_column), real, WIDTH, PADDED)
    to = (((image.to(tl.int64) * height + row) * width + column) * heads + head) * WIDTH
    d = read(grad, to, real, WIDTH, PADDED)
    result = read(out, to, real, WIDTH, PADDED)
    of_row = ((image.to(tl.int64) * heads + head) * height + row) * width + column
    log = tl.load(logsumexp + of_row, mask=real, other=INFINITY) * LOG2E
    total = tl.sum(d.to(ACCURATE) * result.to(ACCURATE), 1)
    tl.store(grad_dot_out + of_row, total, mask=on_map)

    gathered = tl.zeros([QUERY_TILE, PADDED], ACCURATE)
    for start in range(0, NUM_GLOBAL, GLOBAL_TILE):
        token = start + tl.arange(0, GLOBAL_TILE)
        there = token < NUM_GLOBAL
        global_keys = global_key_value + image.to(tl.int64) * global_image + head * global_head
        at = token.to(tl.int64) * global_token
        k = read(global_keys, at, there, WIDTH, PADDED)
        v = read(global_keys + global_to_value, at, there, WIDTH, PADDED)
        scores = product(q, tl.trans(k), ACCURATE, PRECISION) * scale
        if GLOBAL_BIASED:
            bias = tl.load(global_bias + head * NUM_GLOBAL + token, mask=there, other=0.0)
            scores += bias.to(ACCURATE)[None, :]
        weights = tl.where(there[None, :], tl.exp2(scores * LOG2E - log[:, None]), 0.0)
        of_scores = weights * (product(d, tl.trans(v), ACCURATE, PRECISION) - total[:, None])
        gathered += product(of_scores, k, ACCURATE, PRECISION)
        # to (images, chunks, parts, global tokens, 2, heads, head width)
        unit = ((image.to(tl.int64) * chunks + chunk) * PARTS + part) * NUM_GLOBAL + token
        to_key = (unit * 2 * heads + head) * WIDTH
        of_key = product(tl.trans(of_scores.to(q.dtype)), q, ACCURATE, PRECISION) * scale
        of_value = product(tl.trans(weights.to(d.dtype)), d, ACCURATE, PRECISION)
        write(grad_global, to_key, there, of_key, WIDTH, PADDED)
        write(grad_global, to_key + heads * WIDTH, there, of_value, WIDTH, PADDED)
        if GLOBAL_BIASED:  # to (images, chunks, parts, global tokens, heads)
            tl.store(grad_global_bias + unit * heads + head, tl.sum(of_scores, 0), mask=there)

    keys = key_value + image.to(tl.int64) * key_image + head * key_head
    for rectangle in tl.static_range(2 if DRAWN else 1):
        row_from, column_from = chunk_row - ACROSS // 2, chunk_column - ACROSS // 2
        if rectangle == 1:
            row_offset, column_offset = drawn_offset(drawn)
            row_from, column_from = row_from + row_offset, column_from + column_offset
        low, high = span(row_from, ACROSS, -top, key_height - top, own_height, WINDOW, CYCLIC)
        begin, stop = span(column_from, ACROSS, -left, key_width - left, own_width, WINDOW, CYCLIC)
        columns = tl.maximum(stop - begin, 1)
        count = (high - low) * (stop - begin)
        for start in range(0, count, KEY_TILE):
            k_row, k_column, there = tile(start, low, begin, columns, count, KEY_TILE)
            at_row = place(k_row, own_height, WINDOW, CYCLIC)
            at_column = place(k_column, own_width, WINDOW, CYCLIC)
            if CYCLIC:
                there = there & (at_row < own_height) & (at_column < own_width)
            if MASKED:
                there = is_valid(valid, image, at_row + top, at_column + left, key_height, key_width, there)
            at = rows_at(at_row + top, at_column + left, key_row, key_column)
            k = read(keys, at, there, WIDTH, PADDED)
            v = read(keys + key_to_value, at, there, WIDTH, PADDED)
            scores = product(q, tl.trans(k), ACCURATE, PRECISION) * scale
            if BIASED:
                index = table_index(row[:, None], column[:, None], k_row[None, :], k_column[None, :], WINDOW)
                scores += read_table(table, head, index, WINDOW).to(ACCURATE)
            seen = there[None, :]
            if EXACT:
                seen = seen & near(row[:, None], column[:, None], k_row[None, :], k_column[None, :], WINDOW)
            weights = tl.where(seen, tl.exp2(scores * LOG2E - log[:, None]), 0.0)
            of_scores = weights * (product(d, tl.trans(v), ACCURATE, PRECISION) - total[:, None])
            gathered += product(of_scores, k, ACCURATE, PRECISION)
    write(grad_query, to, on_map, gathered * scale, WIDTH, PADDED)


@triton.jit(do_not_specialize=[*SIZES, "first_row", "first_column"])
def keys_backward(
    query,
    key_value,
    table,
    valid,
    sizes,
    drawn,
    logsumexp,
    grad,
    grad_dot_out,
    grad_key_value,
    height,
    width,
    key_height,
    key_width,
    top,
    left,
    chunk_columns,
    chunks,
    heads,
    first_row,
    first_column,
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
    ACROSS: tl.constexpr,
    DRAWN: tl.constexpr,
    BIASED: tl.constexpr,
    MASKED: tl.constexpr,
    SIZED: tl.constexpr,
    CYCLIC: tl.constexpr,
    EXACT: tl.constexpr,
    ACCURATE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write `grad_key_value` of a tile of the keys of a chunk; the first chunk row is `first_row`, 0 or less."""
    image, head, chunk, part = program(heads, chunks, PARTS)
    chunk_row, chunk_column = chunk // chunk_columns + first_row, chunk % chunk_columns + first_column
    own_height, own_width = image_size(sizes, image, height, width, SIZED)
    k_row, k_column, on_map = chunk_tile(chunk_row, chunk_column, part, WINDOW, KEY_TILE)
    key_at_row, key_at_column = k_row + top, k_column + left
    on_map = on_map & (key_at_row >= 0) & (key_at_row < key_height)
    on_map = on_map & (key_at_column >= 0) & (key_at_column < key_width)
    real = on_map
    if CYCLIC:
        real = real & (k_row < own_height) & (k_column < own_width)
    if MASKED:
        real = is_valid(valid, image, key_at_row, key_at_column, key_height, key_width, real)
    keys = key_value + image.to(tl.int64) * key_image + head * key_head
    key_at = rows_at(key_at_row, key_at_column, key_row, key_column)
    k = read(keys, key_at, real, WIDTH, PADDED)
    v = read(keys + key_to_value, key_at, real, WIDTH, PADDED)

    of_key = tl.zeros([KEY_TILE, PADDED], ACCURATE)
    of_value = tl.zeros([KEY_TILE, PADDED], ACCURATE)
    queries = query + image.to(tl.int64) * query_image + head * query_head
    for rectangle in tl.static_range(2 if DRAWN else 1):
        row_from, column_from = chunk_row - ACROSS // 2, chunk_column - ACROSS // 2
        if rectangle == 1:
            row_offset, column_offset = drawn_offset(drawn)
            row_from, column_from = row_from - row_offset, column_from - column_offset
        low, high = span(row_from, ACROSS, 0, height, own_height, WINDOW, CYCLIC)
        begin, stop = span(column_from, ACROSS, 0, width, own_width, WINDOW, CYCLIC)
        columns = tl.maximum(stop - begin, 1)
        count = (high - low) * (stop - begin)
        for start in range(0, count, QUERY_TILE):
            row, column, there = tile(start, low, begin, columns, count, QUERY_TILE)
            at_row = place(row, own_height, WINDOW, CYCLIC)
            at_column = place(column, own_width, WINDOW, CYCLIC)
            if CYCLIC:
                there = there & (at_row < own_height) & (at_column < own_width)
            if MASKED:
                there = is_valid(valid, image, at_row + top, at_column + left, key_height, key_width, there)
            q = read(queries, rows_at(at_row, at_column, query_row, query_column), there, WIDTH, PADDED)
            to = ((image.to(tl.int64) * height + at_row) * width + at_column) * heads + head
            d = read(grad, to * WIDTH, there, WIDTH, PADDED)
            at = ((image.to(tl.int64) * heads + head) * height + at_row) * width + at_column
            log = tl.load(logsumexp + at, mask=there, other=INFINITY) * LOG2E
            total = tl.load(grad_dot_out + at, mask=there, other=0.0)
            scores = product(k, tl.trans(q), ACCURATE, PRECISION) * scale  # (keys, queries)
            if BIASED:
                index = table_index(row[None, :], column[None, :], k_row[:, None], k_column[:, None], WINDOW)
                scores += read_table(table, head, index, WINDOW).to(ACCURATE)
            seen = real[:, None] & there[None, :]
            if EXACT:
                seen = seen & near(row[None, :], column[None, :], k_row[:, None], k_column[:, None], WINDOW)
            weights = tl.where(seen, tl.exp2(scores * LOG2E - log[None, :]), 0.0)
            of_value += product(weights, d, ACCURATE, PRECISION)
            of_scores = weights * (product(v, tl.trans(d), ACCURATE, PRECISION) - total[None, :])
            of_key += product(of_scores, q, ACCURATE, PRECISION)
    key_to = ((image.to(tl.int64) * key_height + key_at_row) * key_width + key_at_column) * 2 * heads + head
    write(grad_key_value, key_to * WIDTH, on_map, of_key * scale, WIDTH, PADDED)
    write(grad_key_value, (key_to + heads) * WIDTH, on_map, of_value, WIDTH, PADDED)
