"""Gradients of windowed attention. No two programs add to one number, so that results can be repeated to the bit.

With P the weights, D the gradient of the result and S that of the scores, S = P · (D Vᵀ − Σ D·out):

queries_backward   a tile of queries stays, keys pass by: S K. It also gives what its queries add to the gradients of
                   the global tokens and their biases, to be summed over programs, and Σ D·out for the others.
keys_backward      a tile of keys stays, queries pass by: Sᵀ Q, Pᵀ D.

What the biases of relative positions gather of S is in `bias_backward`.
"""

import triton
import triton.language as tl

from vision_longformer.attention.triton.arguments import Size
from vision_longformer.attention.triton.tiles import (
    INFINITY,
    LOG2E,
    chunk_tile,
    global_scores,
    image_size,
    look,
    product,
    program,
    query_tile,
    read,
    read_global_keys,
    read_keys,
    read_queries,
    read_results,
    real_tokens,
    rectangle,
    result_at,
    see,
    sum_at,
    tile,
    unmasked,
    write,
)


@triton.jit(do_not_specialize=Size._fields)
def queries_backward(
    queries,
    keys,
    global_keys,
    table,
    global_bias,
    masks,
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
    heads,
    scale,
    C: tl.constexpr,
):
    """Write `grad_query` and `grad_dot_out` of a tile of queries, and its part of the gradients of global tokens."""
    size = Size(height, width, key_height, key_width, top, left, heads)
    chunk_columns = tl.cdiv(width, C.window)
    chunks = tl.cdiv(height, C.window) * chunk_columns
    image, head, chunk, part = program(heads, chunks, C)
    chunk_row, chunk_column = chunk // chunk_columns, chunk % chunk_columns
    own = image_size(masks, image, size)
    row, column, on_map, real = query_tile(image, chunk_row, chunk_column, part, masks, size, C)
    q = read_queries(queries, image, head, row, column, real, C)
    at, of_row = result_at(image, head, row, column, size, C), sum_at(image, head, row, column, size)
    d, result = read(grad, at, real, C), read(out, at, real, C)
    log = tl.load(logsumexp + of_row, mask=real, other=INFINITY) * LOG2E
    total = tl.sum(d.to(C.accurate) * result.to(C.accurate), 1)
    tl.store(grad_dot_out + of_row, total, mask=on_map)

    gathered = tl.zeros([C.query_tile, C.padded], C.accurate)
    for start in range(0, C.num_global, C.global_tile):
        token, there, k, v = read_global_keys(global_keys, image, head, start, C)
        scores = global_scores(q, k, global_bias, head, token, there, scale, C)
        weights = tl.where(there[None, :], tl.exp2(scores * LOG2E - log[:, None]), 0.0)
        of_scores = weights * (product(d, tl.trans(v), C) - total[:, None])
        gathered += product(of_scores, k, C)
        # to (images, chunks, parts, global tokens, 2, heads, head width)
        unit = ((image.to(tl.int64) * chunks + chunk) * C.parts + part) * C.num_global + token
        to_key = (unit * 2 * heads + head) * C.width
        of_key = product(tl.trans(of_scores.to(q.dtype)), q, C) * scale
        of_value = product(tl.trans(weights.to(d.dtype)), d, C)
        write(grad_global, to_key, there, of_key, C)
        write(grad_global, to_key + heads * C.width, there, of_value, C)
        if global_bias is not None:  # to (images, chunks, parts, global tokens, heads)
            tl.store(grad_global_bias + unit * heads + head, tl.sum(of_scores, 0), mask=there)

    rows, columns = (-top, key_height - top), (-left, key_width - left)
    for number in tl.static_range(1 if masks.drawn is None else 2):
        seen_from = rectangle(number, chunk_row, chunk_column, 1, rows, columns, own, masks, C)
        for start in range(0, seen_from[3], C.key_tile):
            k, v, scores, seen = look(
                q, row, column, start, seen_from, keys, table, image, head, own, masks, size, scale, C
            )
            weights = tl.where(seen, tl.exp2(scores * LOG2E - log[:, None]), 0.0)
            of_scores = weights * (product(d, tl.trans(v), C) - total[:, None])
            gathered += product(of_scores, k, C)
    write(grad_query, at, on_map, gathered * scale, C)


@triton.jit(do_not_specialize=Size._fields)
def keys_backward(
    queries,
    keys,
    table,
    masks,
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
    heads,
    scale,
    C: tl.constexpr,
):
    """Write `grad_key_value` of a tile of the keys of a chunk. Chunks lie on the grid of the queries' chunks."""
    size = Size(height, width, key_height, key_width, top, left, heads)
    rows_above, columns_before = tl.cdiv(top, C.window), tl.cdiv(left, C.window)
    chunk_columns = columns_before + tl.cdiv(key_width - left, C.window)
    chunks = (rows_above + tl.cdiv(key_height - top, C.window)) * chunk_columns
    image, head, chunk, part = program(heads, chunks, C)
    chunk_row, chunk_column = chunk // chunk_columns - rows_above, chunk % chunk_columns - columns_before
    own = image_size(masks, image, size)
    k_row, k_column, on_map = chunk_tile(chunk_row, chunk_column, part, C.key_tile, C)
    on_map = on_map & (k_row >= -top) & (k_row < key_height - top)
    on_map = on_map & (k_column >= -left) & (k_column < key_width - left)
    real = on_map
    if C.cyclic:
        real = real & (k_row < own[0]) & (k_column < own[1])
    real = unmasked(image, k_row, k_column, real, masks, size)
    k, v = read_keys(keys, image, head, k_row, k_column, real, size, C)

    of_key = tl.zeros([C.key_tile, C.padded], C.accurate)
    of_value = tl.zeros([C.key_tile, C.padded], C.accurate)
    for number in tl.static_range(1 if masks.drawn is None else 2):
        low, begin, columns, count = rectangle(
            number, chunk_row, chunk_column, -1, (0, height), (0, width), own, masks, C
        )
        for start in range(0, count, C.query_tile):
            row, column, there = tile(start, low, begin, columns, count, C.query_tile)
            at_row, at_column, there = real_tokens(image, row, column, there, own, masks, size, C)
            q = read_queries(queries, image, head, at_row, at_column, there, C)
            d, log, total = read_results(grad, logsumexp, grad_dot_out, image, head, at_row, at_column, there, size, C)
            scores = product(k, tl.trans(q), C) * scale  # (keys, queries)
            positions = (row[None, :], column[None, :], k_row[:, None], k_column[:, None])
            scores, seen = see(scores, real[:, None] & there[None, :], table, head, *positions, C)
            weights = tl.where(seen, tl.exp2(scores * LOG2E - log[None, :]), 0.0)
            of_value += product(weights, d, C)
            of_scores = weights * (product(v, tl.trans(d), C) - total[None, :])
            of_key += product(of_scores, q, C)
    of_token = (image.to(tl.int64) * key_height + k_row + top) * key_width + k_column + left
    to_key = (of_token * 2 * heads + head) * C.width
    write(grad_key_value, to_key, on_map, of_key * scale, C)
    write(grad_key_value, to_key + heads * C.width, on_map, of_value, C)
