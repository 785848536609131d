"""Draw the figures of the documentation: `python docs/figures/draw.py`, with the library installed.

What a token sees, how a map falls into regions and what a model costs are not drawn from memory: they come from the
library's own functions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from svg import Drawing

from vision_longformer import Full, ModelConfig, multiply_adds
from vision_longformer.attention.dense import dense_windowed_attention
from vision_longformer.attention.gathered import BAND_BYTES
from vision_longformer.attention.geometry import ALL, OWN, Offset, regions
from vision_longformer.config import WindowShape
from vision_longformer.padding import size_at
from vision_longformer.variants import CONFIGS

HERE = Path(__file__).parent
Token = tuple[int, int]  # row, column
SMALL = CONFIGS["vision_longformer_small"]


# --- the model --------------------------------------------------------------------------------------------------


def draw_architecture() -> None:
    """Draw the data flow from image to maps and logits."""
    page = Drawing(980, 366, title="Data flow: image, four stages with their maps, head")
    top, bottom, middle = 84, 206, 145
    page.rectangle(16, top + 14, 92, 94, "box", round_=6)
    page.text(62, middle - 14, "image", "middle bold")
    page.text(62, middle + 8, "B, 3, H, W", "middle small")
    page.text(62, middle + 28, "any size", "middle small soft")
    x, width, gap = 136, 142, 28
    for number, (stage, stride) in enumerate(zip(SMALL.stages, SMALL.strides, strict=True), start=1):
        centre = x + width / 2
        page.arrow([(x - gap + 1, middle), (x - 1, middle)])
        page.rectangle(x, top, width, bottom - top, "box", round_=6)
        page.text(centre, top + 26, f"stage {number}", "middle bold")
        page.text(centre, top + 54, f"patches of {stage.patch_size}×{stage.patch_size}", "middle small")
        page.text(centre, top + 76, f"{stage.depth} block{'s' * (stage.depth > 1)}", "middle small")
        page.text(centre, top + 104, f"stride {stride}", "middle small soft")
        if stage.num_global_tokens:
            page.rectangle(x + 11, 22, width - 22, 34, "global", round_=17)
            page.text(centre, 44, f"{stage.num_global_tokens} global token", "middle small")
            page.path([(centre, 56), (centre, top)], "global-line")
        else:
            page.text(centre, 44, "no global token", "middle small soft")
        page.arrow([(centre, bottom + 1), (centre, bottom + 30)], "map")
        page.rectangle(x - 4, bottom + 31, width + 8, 78, "map", round_=6)
        page.text(centre, bottom + 55, f"B, ⌈H/{stride}⌉, ⌈W/{stride}⌉, C{'₁₂₃₄'[number - 1]}", "middle small")
        page.text(centre, bottom + 76, "small at 224×224:", "middle small soft")
        rows, columns = SMALL.grid_size(number - 1)
        page.text(centre, bottom + 97, f"{rows} × {columns} × {stage.width}", "middle small soft")
        x += width + gap
    page.arrow([(x - gap + 1, middle), (x - 1, middle)])
    page.rectangle(x, top, width, bottom - top, "box", round_=6)
    for line, (text, kind) in enumerate(
        [("head", "bold"), ("LayerNorm", "small"), ("mean of all tokens", "small"), ("linear layer", "small")]
    ):
        page.text(x + width / 2, top + 26 + 26 * line + 2 * bool(line), text, f"middle {kind}")
    page.arrow([(x + width / 2, bottom + 1), (x + width / 2, bottom + 30)])
    page.rectangle(x - 4, bottom + 31, width + 8, 78, "box", round_=6)
    page.text(x + width / 2, bottom + 64, "logits", "middle bold")
    page.text(x + width / 2, bottom + 86, "B, classes", "middle small")
    page.text(
        490, 344, "Only the map goes on to the next stage, which has global tokens of its own.", "middle small soft"
    )
    page.write(HERE / "architecture.svg")


def draw_block() -> None:
    """Draw one block, with the map and the global tokens side by side."""
    page = Drawing(980, 270, title="One block: attention and an MLP, each added to its input")
    above, below = 100, 170
    page.rectangle(16, above - 29, 116, 58, "map", round_=6)
    page.text(74, above - 5, "map", "middle bold")
    page.text(74, above + 16, "B, H, W, C", "middle small")
    page.rectangle(16, below - 25, 116, 58, "global", round_=6)
    page.text(74, below - 1, "global tokens", "middle bold")
    page.text(74, below + 20, "B, G, C", "middle small")
    lanes = ((above, "map", 36), (below + 4, "global", 238))
    x = 132
    for norm, heading, lines in (
        ("LayerNorm", "attention", ("one softmax over", "map and global keys")),
        ("LayerNorm", "MLP", ("C → 4C → C, GELU", "token by token")),
    ):
        for y, kind, detour in lanes:
            page.arrow([(x, y), (x + 46, y)], kind)
            page.arrow(
                [(x + 16, y), (x + 16, detour), (x + 374, detour), (x + 374, y + math.copysign(12, detour - y))], kind
            )
            page.arrow([(x + 141, y), (x + 171, y)], kind)
            page.arrow([(x + 326, y), (x + 362, y)], kind)
        page.rectangle(x + 47, above - 29, 94, 132, "box", round_=6)
        page.text(x + 94, (above + below) / 2 + 7, norm, "middle small")
        page.rectangle(x + 172, above - 29, 154, 132, "box", round_=6)
        page.text(x + 249, above + 22, heading, "middle bold")
        for number, line in enumerate(lines):
            page.text(x + 249, above + 47 + 20 * number, line, "middle small")
        for y, _, _ in lanes:
            page.plus(x + 374, y)
        x += 385
    for y, kind, _ in lanes:
        page.arrow([(x, y), (x + 40, y)], kind)
    page.text(490, 24, "the map goes its way above, the global tokens below; weights are shared", "middle small soft")
    page.write(HERE / "block.svg")


# --- what a token sees ------------------------------------------------------------------------------------------


def visible_keys(
    size: tuple[int, int], query: Token, *, window: int, shape: WindowShape, offsets: Sequence[Offset]
) -> set[Token]:
    """Return the map tokens that `query` attends to: values are one-hot, so that the output shows the weights."""
    height, width = size
    tokens = height * width
    zeros = torch.zeros(1, height, width, 1, tokens)
    values = torch.eye(tokens).view(zeros.shape)
    out = dense_windowed_attention(
        zeros,
        torch.stack([zeros, values], dim=3),
        torch.zeros(1, 0, 2, 1, tokens),
        table=None,
        global_bias=None,
        valid=None,
        window=window,
        shape=shape,
        offsets=offsets,
    )
    weights = out[0, query[0], query[1], 0].view(height, width)
    return {(int(row), int(column)) for row, column in weights.nonzero()}


def draw_map(
    page: Drawing, x: float, y: float, cell: float, size: tuple[int, int], query: Token, seen: set[Token], window: int
) -> None:
    """Draw a map's tokens: the query, what it sees and what it does not, and the borders of the chunks."""
    own = (query[0] // window, query[1] // window)
    for row in range(size[0]):
        for column in range(size[1]):
            steps = (abs(row // window - own[0]), abs(column // window - own[1]))
            if (row, column) == query:
                kind = "query"
            elif (row, column) not in seen:
                kind = "unseen"
            else:
                kind = {0: "own", 1: "near"}.get(max(steps), "wrapped")
            page.rectangle(x + column * cell + 1, y + row * cell + 1, cell - 2, cell - 2, kind, round_=2)
    draw_chunks(page, x, y, cell, size, window)


def draw_chunks(page: Drawing, x: float, y: float, cell: float, size: tuple[int, int], window: int) -> None:
    """Draw the borders of a map's chunks."""
    height, width = size
    for row in [*range(0, height, window), height]:
        page.path([(x, y + row * cell), (x + width * cell, y + row * cell)], "chunk")
    for column in [*range(0, width, window), width]:
        page.path([(x + column * cell, y), (x + column * cell, y + height * cell)], "chunk")


def draw_legend(page: Drawing, x: float, y: float, entries: Sequence[tuple[str, str, float]]) -> None:
    """Draw squares with their meaning, each in a column of its own width."""
    for kind, meaning, width in entries:
        page.rectangle(x, y - 12, 15, 15, kind, round_=2)
        page.text(x + 22, y, meaning, "small")
        x += width


def draw_windows() -> None:
    """Draw what tokens of a corner, an edge and an inner chunk see, for each window shape."""
    size, window, cell = (10, 14), 3, 16
    left, step_x, step_y = 104, 284, 238
    shapes: dict[WindowShape, str] = {
        "chunk": "whole chunks around the own",
        "exact": "at most w rows and w columns away",
        "cyclic": "chunks wrap around the map",
    }
    queries: dict[str, Token] = {"corner": (0, 1), "edge": (1, 8), "inner": (5, 6)}
    page = Drawing(980, 848, title="What a token of a corner, an edge and an inner chunk sees")
    for column, (shape, meaning) in enumerate(shapes.items()):
        x = left + column * step_x
        page.text(x, 34, shape, "bold")
        page.text(x, 56, meaning, "small soft")
    for row, (name, query) in enumerate(queries.items()):
        y = 76 + row * step_y
        page.text(20, y + 78, name, "bold")
        page.text(20, y + 98, "chunk", "bold")
        for column, shape in enumerate(shapes):
            x = left + column * step_x
            seen = visible_keys(size, query, window=window, shape=shape, offsets=ALL)
            if shape == "cyclic":  # the grid that wraps is padded to whole chunks
                page.rectangle(x, y, 15 * cell, 12 * cell, "padding")
            draw_map(page, x, y, cell, size, query, seen, window)
            page.text(x, y + 213, f"{len(seen)} map keys", "small")
    legend = [
        ("query", "the query (a key as well)", 196),
        ("own", "its chunk", 104),
        ("near", "neighbour chunks", 154),
        ("wrapped", "seen around the edge", 180),
        ("unseen", "not seen", 100),
        ("padding", "padding, never seen", 140),
    ]
    draw_legend(page, 24, 800, legend)
    page.text(
        24,
        830,
        "A map of 10 × 14 tokens, w = 3. Every token also sees the global tokens, and these see the whole map.",
        "small soft",
    )
    page.write(HERE / "windows.svg")


def draw_neighbours() -> None:
    """Draw the choice of neighbours: all, own, and random draws."""
    size, window, cell = (10, 14), 3, 15
    edge, inner = (1, 13), (5, 6)
    panels: list[tuple[str, str, Token, Sequence[Offset]]] = [
        ("all", "and random, in evaluation", inner, ALL),
        ("own", "in training and evaluation", inner, [OWN]),
        ("random", "training, a draw of (0, 1)", inner, [OWN, (0, 1)]),
        ("random", "the same draw at the edge", edge, [OWN, (0, 1)]),
    ]
    page = Drawing(980, 262, title="What a token sees with all, no and random neighbours")
    for number, (name, meaning, query, offsets) in enumerate(panels):
        x = 24 + number * 240
        seen = visible_keys(size, query, window=window, shape="chunk", offsets=offsets)
        page.text(x, 32, name, "bold")
        page.text(x, 52, meaning, "small soft")
        draw_map(page, x, 66, cell, size, query, seen, window)
        page.text(x, 242, f"{len(seen)} map keys", "small")
    page.write(HERE / "neighbours.svg")


# --- how it is computed -----------------------------------------------------------------------------------------


def draw_regions() -> None:
    """Draw a map's regions with the keys of their chunks, and what happens to one band."""
    size, window, cell = (40, 68), 7, 7.5
    x, y = 24, 74
    page = Drawing(980, 424, title="Regions of chunks with the same neighbours, and the walk of one band")
    page.text(x, 32, "a map of 40 × 68 tokens, w = 7", "bold")
    page.text(x, 54, "number: map keys of each token of the chunk; thick lines: regions", "small soft")
    found = list(regions(size, window, ALL, keys=((0, size[0]), (0, size[1]))))
    counts = {region: sum((r[1] - r[0]) * (c[1] - c[0]) for r, c in region.keys) for region in found}
    for region, keys in counts.items():
        shade = sum(keys > limit for limit in (200, 300, 400))
        for row in range(region.rows.first, region.rows.first + region.rows.count):
            for column in range(region.columns.first, region.columns.first + region.columns.count):
                px, py = x + column * window * cell, y + row * window * cell
                width, height = region.columns.queries * cell, region.rows.queries * cell
                page.rectangle(px, py, width, height, f"keys{shade}")
                page.rectangle(px, py, width, height, "thin")
                page.text(px + width / 2, py + height / 2 + 5, str(keys), "middle small")
    for region in found:
        page.rectangle(
            x + region.columns.first * window * cell,
            y + region.rows.first * window * cell,
            ((region.columns.count - 1) * window + region.columns.queries) * cell,
            ((region.rows.count - 1) * window + region.rows.queries) * cell,
            "chunk",
        )
    side = window * cell
    inner = max(found, key=lambda region: region.rows.count * region.columns.count)
    chunks = BAND_BYTES // (2 * counts[inner] * 768 * 4)  # keys and values of 768 channels, in float32
    columns = min(chunks, inner.columns.count)
    assert chunks // columns == 1, "the band drawn below is one row of chunks"
    first, row = inner.columns.first, inner.rows.first + 1
    page.rectangle(
        x + (first - 1) * side + 4, y + (row - 1) * side + 4, (columns + 2) * side - 8, 3 * side - 8, "reach"
    )
    page.rectangle(x + first * side, y + row * side, columns * side, side, "band")
    note = f"orange: a band of n = {columns} chunks at width 768; dashed: the keys it gathers"
    page.text(x, y + 40 * cell + 30, note, "small soft")
    draw_band_walk(page, 566, 74)
    page.write(HERE / "regions.svg")


def draw_band_walk(page: Drawing, x: float, y: float) -> None:
    """Draw the four steps that each band takes."""
    page.text(x, 32, "for each band", "bold")
    page.text(x, 54, "G global tokens, K map keys of a chunk", "small soft")
    steps = [
        ("gather queries", "n, h, w², d", "gather keys and values", "n, h, G + K, d", 74),
        ("add biases of the region, and −∞ where", "", "the mask hides a key, if it hides any", "", 62),
        ("scaled_dot_product_attention", "", "", "", 44),
        ("put the n, h, w², d result back", "", "", "", 44),
    ]
    width = 390
    for number, (first, first_shape, second, second_shape, height) in enumerate(steps):
        if first_shape:
            half = (width - 16) / 2
            for offset, text, shape in ((0, first, first_shape), (half + 16, second, second_shape)):
                page.rectangle(x + offset, y, half, height, "map", round_=6)
                page.text(x + offset + half / 2, y + 30, text, "middle small")
                page.text(x + offset + half / 2, y + 54, shape, "middle small soft")
        else:
            page.rectangle(x, y, width, height, "box", round_=6)
            lines = [line for line in (first, second) if line]
            for line_number, line in enumerate(lines):
                page.text(x + width / 2, y + 27 + 21 * line_number, line, "middle small")
        y += height
        if number < len(steps) - 1:
            page.arrow([(x + width / 2, y + 1), (x + width / 2, y + 25)])
            y += 26


# --- the mechanisms of the comparison ---------------------------------------------------------------------------


def draw_mechanisms() -> None:
    """Draw what the keys of a token are, for each mechanism."""
    size, cell, query, ratio = (10, 14), 13, (5, 6), 4
    height, width = size[0] * cell, size[1] * cell
    everything = {(row, column) for row in range(size[0]) for column in range(size[1])}
    page = Drawing(980, 640, title="What the keys of a token are, for each mechanism")
    columns, top, bottom = (24, 346, 668), 72, 346

    direct = {
        "windowed": ("nearby tokens", visible_keys(size, query, window=3, shape="chunk", offsets=ALL)),
        "full": ("every token", everything),
        "global-only": ("the global tokens alone", set[Token]()),
    }
    for x, (name, (meaning, seen)) in zip(columns, direct.items(), strict=True):
        draw_heading(page, x, top, name, meaning)
        kinds = {token: "near" if token in seen else "unseen" for token in everything} | {query: "query"}
        draw_tokens(page, x, top, cell, kinds)
        draw_foot(page, x, top + height, width, f"{len(seen) or 'no'} map keys, and G global ones")

    sums = dict.fromkeys(everything, "mixed") | {query: "query"}
    linformer, reduction, performer = columns
    middle = bottom + height / 2
    for x, name, meaning, shape, caption in (
        (linformer, "Linformer", "learned sums of all tokens, global ones too", "k × d", "k keys, whatever the map"),
        (performer, "Performer", "all tokens, by random features", "m × d", "one sum Σ φ(k) vᵀ for all queries"),
    ):
        draw_heading(page, x, bottom, name, meaning)
        draw_tokens(page, x, bottom, cell, sums)
        page.arrow([(x + width + 6, middle), (x + width + 32, middle)])
        page.text(x + width + 66, middle + 76, shape, "middle small soft")
        draw_foot(page, x, bottom + height, width, caption)
    for number in range(6):
        page.rectangle(linformer + width + 36, middle - 57 + 19 * number, 60, 15, "near", round_=2)
    page.rectangle(performer + width + 36, middle - 57, 60, 110, "mixed", round_=2)

    draw_heading(page, reduction, bottom, "spatial reduction", "squares of tokens")
    rows, across = size_at(size, ratio)
    padding = {(row, column): "padding" for row in range(rows * ratio) for column in range(across * ratio)}
    draw_tokens(page, reduction, bottom, cell, padding | sums)
    draw_chunks(page, reduction, bottom, cell, (rows * ratio, across * ratio), ratio)
    page.arrow([(reduction + across * ratio * cell + 4, middle), (reduction + width + 46, middle)])
    reduced = {(row, column): "near" for row in range(rows) for column in range(across)}
    draw_tokens(page, reduction + width + 50, middle - 27, 18, reduced)
    caption = f"{rows * across} map keys for R = {ratio}, and G global ones"
    draw_foot(page, reduction, bottom + rows * ratio * cell, width, caption)

    legend = [
        ("query", "the query", 120),
        ("near", "a key", 100),
        ("mixed", "enters sums only", 160),
        ("unseen", "not seen", 114),
        ("padding", "padding, zero", 140),
    ]
    draw_legend(page, 24, 616, legend)
    page.write(HERE / "mechanisms.svg")


def draw_heading(page: Drawing, x: float, y: float, name: str, meaning: str) -> None:
    """Write what a map below shows."""
    page.text(x, y - 36, name, "bold")
    page.text(x, y - 15, meaning, "small soft")


def draw_tokens(page: Drawing, x: float, y: float, cell: float, kinds: Mapping[Token, str]) -> None:
    """Draw the tokens of a map, each as what it is."""
    for (row, column), kind in sorted(kinds.items()):
        page.rectangle(x + column * cell + 1, y + row * cell + 1, cell - 2, cell - 2, kind, round_=2)


def draw_foot(page: Drawing, x: float, y: float, width: float, caption: str) -> None:
    """Draw the global tokens below a map that ends at `y`, and write what is below them."""
    page.rectangle(x, y + 10, width, 26, "global", round_=13)
    page.text(x + width / 2, y + 28, "global tokens", "middle small")
    page.text(x, y + 60, caption, "small")


# --- what it costs ----------------------------------------------------------------------------------------------


def with_full_attention(config: ModelConfig) -> ModelConfig:
    """Return a configuration with full attention in every stage."""
    return dataclasses.replace(
        config, stages=tuple(dataclasses.replace(stage, attention=Full()) for stage in config.stages)
    )


def draw_multiply_adds() -> None:
    """Draw the multiply-adds of the small model against the side of a square image."""
    curves = {
        "full attention in all stages": with_full_attention(SMALL),
        "full in stages 3 and 4 (small_full)": CONFIGS["vision_longformer_small_full"],
        "windowed in all stages (small)": SMALL,
    }
    page = Drawing(980, 480, title="Multiply-adds of small against the side of the image")
    left, right, top, bottom = 92, 650, 62, 404
    sides, decades = (224, 448, 896, 1792, 3584), range(0, 7)

    def at(side: float, cost: float) -> tuple[float, float]:
        share_x = math.log(side / sides[0]) / math.log(sides[-1] / sides[0])
        share_y = math.log10(cost / 1e9) / decades[-1]
        return left + share_x * (right - left), bottom - share_y * (bottom - top)

    page.text(24, 34, "multiply-adds of one image, both axes logarithmic", "bold")
    for decade in decades:
        _, y = at(sides[0], 10 ** (9 + decade))
        page.path([(left, y), (right, y)], "thin")
        page.text(left - 10, y + 5, ("1 G", "10 G", "100 G", "1 T", "10 T", "100 T", "1000 T")[decade], "end small")
    for side in sides:
        x, _ = at(side, 1e9)
        page.path([(x, top), (x, bottom)], "thin")
        page.text(x, bottom + 24, str(side), "middle small")
    page.text((left + right) / 2, bottom + 50, "side of a square image in pixels", "middle small soft")
    for number, (name, config) in enumerate(curves.items()):
        points = [(side, multiply_adds(config, (side, side))) for side in range(sides[0], sides[-1] + 1, 32)]
        page.path([at(*point) for point in points], f"curve{number}")
        _, y = at(*points[-1])
        page.text(right + 14, y + 1, name, "bold small")
        page.text(right + 14, y + 21, f"{points[-1][1] / 1e12:,.1f} T at {sides[-1]}", "small soft")
    page.write(HERE / "multiply_adds.svg")


if __name__ == "__main__":
    draw_architecture()
    draw_block()
    draw_windows()
    draw_neighbours()
    draw_regions()
    draw_mechanisms()
    draw_multiply_adds()
