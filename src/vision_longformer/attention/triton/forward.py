"""Windowed attention from the queries of one chunk, or of a part of it, to all that they see."""

import triton
import triton.language as tl

from vision_longformer.attention.triton.arguments import Size
from vision_longformer.attention.triton.tiles import (
    INFINITY,
    LOG2E,
    add_keys,
    global_scores,
    image_size,
    look,
    program,
    query_tile,
    read_global_keys,
    read_queries,
    rectangle,
    result_at,
    sum_at,
    write,
)


@triton.jit(do_not_specialize=Size._fields)
def attend(
    queries,
    keys,
    global_keys,
    table,
    global_bias,
    masks,
    out,
    logsumexp,
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
    """Write `out` and `logsumexp` of a tile of queries."""
    size = Size(height, width, key_height, key_width, top, left, heads)
    chunk_columns = tl.cdiv(width, C.window)
    image, head, chunk, part = program(heads, tl.cdiv(height, C.window) * chunk_columns, C)
    chunk_row, chunk_column = chunk // chunk_columns, chunk % chunk_columns
    own = image_size(masks, image, size)
    row, column, on_map, real = query_tile(image, chunk_row, chunk_column, part, masks, size, C)
    q = read_queries(queries, image, head, row, column, real, C)

    largest = tl.full([C.query_tile], -INFINITY, C.accurate)
    total = tl.zeros([C.query_tile], C.accurate)
    gathered = tl.zeros([C.query_tile, C.padded], C.accurate)
    for start in range(0, C.num_global, C.global_tile):
        token, there, k, v = read_global_keys(global_keys, image, head, start, C)
        scores = global_scores(q, k, global_bias, head, token, there, scale, C)
        scores = tl.where(there[None, :], scores, -INFINITY)
        largest, total, gathered = add_keys(largest, total, gathered, scores, v, C)

    rows, columns = (-top, key_height - top), (-left, key_width - left)
    for number in tl.static_range(1 if masks.drawn is None else 2):
        seen_from = rectangle(number, chunk_row, chunk_column, 1, rows, columns, own, masks, C)
        for start in range(0, seen_from[3], C.key_tile):
            k, v, scores, seen = look(
                q, row, column, start, seen_from, keys, table, image, head, own, masks, size, scale, C
            )
            scores = tl.where(seen, scores, -INFINITY)
            largest, total, gathered = add_keys(largest, total, gathered, scores, v, C)

    empty = total == 0.0  # no key: not `> 0`, as NaN shall remain
    if masks.valid is not None:
        empty = empty | ~real
    divisor = tl.where(empty, 1.0, total)
    result = tl.where(empty[:, None], 0.0, gathered / divisor[:, None])
    write(out, result_at(image, head, row, column, size, C), on_map, result, C)
    log = tl.where(empty, INFINITY, largest + tl.log2(divisor) / LOG2E)
    tl.store(logsumexp + sum_at(image, head, row, column, size), log, mask=on_map)
