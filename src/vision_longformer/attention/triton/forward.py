"""Windowed attention from the queries of one chunk, or of a part of it, to all that they see."""

import triton
import triton.language as tl

from vision_longformer.attention.triton.tiles import (
    INFINITY,
    LOG2E,
    SIZES,
    add_keys,
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
def attend(
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
    """Write `out` and `logsumexp` of a tile of queries."""
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

    largest = tl.full([QUERY_TILE], -INFINITY, ACCURATE)
    total = tl.zeros([QUERY_TILE], ACCURATE)
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
        scores = tl.where(there[None, :], scores, -INFINITY)
        largest, total, gathered = add_keys(largest, total, gathered, scores, v, ACCURATE, PRECISION)

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
            scores = tl.where(seen, scores, -INFINITY)
            largest, total, gathered = add_keys(largest, total, gathered, scores, v, ACCURATE, PRECISION)

    empty = total == 0.0  # no key: not `> 0`, as NaN shall remain
    if MASKED:
        empty = empty | ~real
    divisor = tl.where(empty, 1.0, total)
    result = tl.where(empty[:, None], 0.0, gathered / divisor[:, None])
    to = ((image.to(tl.int64) * height + row) * width + column) * heads + head
    write(out, to * WIDTH, on_map, result, WIDTH, PADDED)
    log = tl.where(empty, INFINITY, largest + tl.log2(divisor) / LOG2E)
    at = ((image.to(tl.int64) * heads + head) * height + row) * width + column
    tl.store(logsumexp + at, log, mask=on_map)
