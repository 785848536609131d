"""Checkpoints of the published code to models of this library, every entry accounted for.

C channels, h heads, G global tokens, H×W the map of a stage, w window
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision_longformer.attention.full import resize_step_table
from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import (
    Attention,
    Full,
    GlobalOnly,
    Linformer,
    ModelConfig,
    Neighbours,
    Performer,
    SpatialReduction,
    StageConfig,
    Windowed,
)
from vision_longformer.published.checkpoint_file import load_reference_checkpoint
from vision_longformer.published.parse import (
    WINDOW_SHAPES,
    ConversionReport,
    ReferenceEntries,
    ReferenceOptions,
    ReferenceStage,
    parse_architecture,
)
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.weights import load_exactly, save


def model_from_reference(
    state: Mapping[str, Any],
    arch: str,
    *,
    image_size: int | tuple[int, int],
    windowed: bool = False,
    **reference_options: Any,
) -> VisionLongformer:
    """Build the model that a checkpoint of the published code holds.

    Args:
        state: Its state dict, or the dictionary with a "net" entry that its files hold.
        arch: Its architecture string, such as "l1,h3,d96,n1,s1,g1,p4,f7,a0_l2,...".
        image_size: Pixels it was trained at, which its position tables are sized for.
        windowed: Turn full attention into windowed attention with the same weights (see `to_windowed`).
        **reference_options: Fields of `ReferenceOptions`.

    Raises:
        ValueError: The string or an option is wrong, or the state dict does not fit; lists every entry that is
            missing, unexpected or misshapen.
        TypeError: There is no such option.
    """
    return convert(
        state, arch, image_size=image_size, windowed=windowed, options=ReferenceOptions(**reference_options)
    )[0]


def convert(
    state: Mapping[str, Any],
    arch: str,
    *,
    image_size: int | tuple[int, int],
    options: ReferenceOptions,
    windowed: bool = False,
    stretch_tables: bool = False,
) -> tuple[VisionLongformer, ConversionReport]:
    """Do what `model_from_reference` does, and say what became of each entry.

    `stretch_tables` is passed on to `to_windowed`.
    """
    entries = ReferenceEntries(state)
    stages = parse_architecture(arch)
    config = _model_config(stages, entries, image_size=image_size, options=options)
    with torch.device("meta"):
        model = VisionLongformer(config)
    _convert_state(config, entries)
    entries.raise_problems(image_size=config.image_size)
    load_exactly(model, entries.converted, source="the converted checkpoint")
    if windowed:
        windows = [stage.window for stage in stages]
        model = to_windowed(model, window_sizes=windows, stretch_tables=stretch_tables, report=entries.report)
    return model.eval(), entries.report


def convert_file(
    checkpoint: str | Path,
    output: str | Path,
    *,
    arch: str,
    image_size: int | tuple[int, int],
    options: ReferenceOptions,
    windowed: bool = False,
    stretch_tables: bool = False,
    class_names: str | Path | None = None,
    report_file: str | Path | None = None,
) -> tuple[Path, ConversionReport]:
    """Convert a `.pth` file of the published code to a self-describing file or folder (see `weights.save`).

    Args:
        checkpoint: What to read.
        output: What to write; not touched unless all is well.
        arch: See `model_from_reference`.
        image_size: See `model_from_reference`.
        options: See `model_from_reference`.
        windowed: See `model_from_reference`.
        stretch_tables: See `to_windowed`.
        class_names: A text file with one name a line, to be stored with the weights.
        report_file: Gets the report as JSON.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A file or option is wrong, or they do not fit; names the file.
    """
    names = None if class_names is None else Path(class_names).read_text().splitlines()
    state = load_reference_checkpoint(checkpoint)
    try:
        model, report = convert(
            state, arch, image_size=image_size, options=options, windowed=windowed, stretch_tables=stretch_tables
        )
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from error
    weights = save(model, output, class_names=names)
    if report_file is not None:
        with replacing(Path(report_file)) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(report), indent=2) + "\n")
    return weights, report


def to_windowed(
    model: VisionLongformer,
    *,
    window_sizes: Sequence[int] | None = None,
    stretch_tables: bool = False,
    report: ConversionReport | None = None,
) -> VisionLongformer:
    """Turn full attention into windowed attention with the same weights.

    Where one neighbourhood of chunks covers a map, the result is the same; on larger maps the cost is linear. Each
    relative position keeps its bias, those beyond the trained range take the nearest trained one.

    Args:
        model: Not changed.
        window_sizes: One for each stage, 7 by default; used where attention is full.
        stretch_tables: Stretch bias tables bilinearly over the window instead, as the published detection code does.
        report: Gets a line for each table that changed.
    """
    report = report or ConversionReport()
    window_sizes = window_sizes or [7] * len(model.config.stages)
    state = model.state_dict()
    stages = list(model.config.stages)
    for number, stage in enumerate(stages):
        if not isinstance(stage.attention, Full):
            continue
        window = window_sizes[number]
        stages[number] = dataclasses.replace(stage, attention=Windowed(window_size=window))
        if stage.position != "relative":
            continue
        grid = model.config.grid_size(number)
        for block in range(stage.depth):
            name = f"stages.{number}.blocks.{block}.attn.position.table"
            before = state[name]
            if stretch_tables:
                state[name] = resize_step_table(before, grid, (2 * window, 2 * window))
            else:
                state[name] = table_by_offset(before, grid, window)
            if not torch.equal(state[name], before):
                report.resized.append(f"{name}: for {grid[0]}×{grid[1]} tokens, fitted to windows of {window}")
    with torch.device("meta"):
        result = VisionLongformer(dataclasses.replace(model.config, stages=tuple(stages)))
    load_exactly(result, {name: tensor.clone() for name, tensor in state.items()}, source="the windowed model")
    return result.train(model.training)


def table_by_offset(table: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """Carry a ((2H − 1)(2W − 1), h) table for `grid` H×W over to ((4w − 1)², h): an offset keeps its meaning."""
    steps = torch.arange(1 - 2 * window, 2 * window, device=table.device)
    rows, columns = (steps.clamp(1 - side, side - 1) + side - 1 for side in grid)
    index = rows[:, None] * (2 * grid[1] - 1) + columns
    return table[index.flatten()]


def _model_config(
    stages: Sequence[ReferenceStage],
    entries: ReferenceEntries,
    *,
    image_size: int | tuple[int, int],
    options: ReferenceOptions,
) -> ModelConfig:
    first = entries.tensors.get("layer1.0.proj.weight")
    has_token = stages[-1].global_tokens > 0 and not options.avg_pool
    return ModelConfig(
        stages=tuple(_stage_config(stage, _attention(stage, entries, options)) for stage in stages),
        image_size=(image_size, image_size) if isinstance(image_size, int) else image_size,
        num_classes=options.num_classes,
        in_chans=3 if first is None or first.ndim != 4 else first.shape[1],
        global_pool="token" if has_token else "avg",
        norm_embed=options.norm_embed,
    )


def _stage_config(stage: ReferenceStage, attention: Attention) -> StageConfig:
    without_biases = isinstance(attention, Linformer | SpatialReduction | Performer)
    return StageConfig(
        depth=stage.blocks,
        width=stage.width,
        num_heads=stage.heads,
        patch_size=stage.patch,
        num_global_tokens=stage.global_tokens,
        position="absolute" if stage.absolute else "none" if without_biases else "relative",
        attention=attention,
    )


def _attention(stage: ReferenceStage, entries: ReferenceEntries, options: ReferenceOptions) -> Attention:
    """Tell the mechanism by the names in the checkpoint, and where it has none by the architecture string."""
    prefix = f"layer{stage.stage}.1.attn."
    names = {name.removeprefix(prefix) for name in entries.tensors if name.startswith(prefix)}
    named_by = {
        "fast_attention.projection_matrix": "performer",
        "proj_k": "linformer",
        "proj_sr.weight": "srformer",
        "qkv.weight": "full",
    }
    kind = options.attn_type if stage.use_attn_type else "full"
    if names:
        kind = next((kind for name, kind in named_by.items() if name in names), "longformerhand")
    match kind:
        case "full":
            return Full()
        case "linformer":
            return Linformer(num_features=stage.window, shared_projection=options.share_kv)
        case "srformer":
            return SpatialReduction(ratio=stage.window)
        case "performer":
            return Performer(num_features=stage.window)
    if options.only_glo:
        return GlobalOnly(shared_global_projections=options.sharew)
    named: dict[int, Neighbours] = {-1: "own", 0: "all"}
    return Windowed(
        window_size=stage.window,
        shape=WINDOW_SHAPES[options.sw_exact],
        neighbours=named.get(options.mode, "random"),
        shared_global_projections=options.sharew,
    )


def _convert_state(config: ModelConfig, entries: ReferenceEntries) -> None:
    in_chans = config.in_chans
    for number, stage in enumerate(config.stages):
        old, new, grid = f"layer{number + 1}", f"stages.{number}", config.grid_size(number)
        embed, patch = f"{new}.patch_embed.", stage.patch_size
        entries.move_layer(f"{old}.0.proj", f"{embed}proj", (stage.width, in_chans, patch, patch))
        if config.norm_embed:
            entries.move_layer(f"{old}.0.norm_embed", f"{embed}norm", (stage.width,))
        _embeddings(entries, f"{old}.0.", embed, stage, grid=grid)
        for block in range(stage.depth):
            attention, mlp = f"{old}.{2 * block + 1}.", f"{old}.{2 * block + 2}."
            prefix, hidden = f"{new}.blocks.{block}.", 4 * stage.width
            attention_from_reference(entries, f"{attention}attn.", f"{prefix}attn.", stage, grid=grid)
            entries.move_layer(f"{attention}norm", f"{prefix}norm1", (stage.width,))
            entries.move_layer(f"{mlp}norm", f"{prefix}norm2", (stage.width,))
            entries.move_layer(f"{mlp}mlp.fc1", f"{prefix}mlp.fc1", (hidden, stage.width))
            entries.move_layer(f"{mlp}mlp.fc2", f"{prefix}mlp.fc2", (stage.width, hidden))
        in_chans = stage.width
    entries.move_layer("norm", "norm", (in_chans,))
    if config.num_classes:
        entries.move_layer("head", "head", (config.num_classes, in_chans))


def _embeddings(entries: ReferenceEntries, old: str, new: str, stage: StageConfig, *, grid: tuple[int, int]) -> None:
    """Convert global tokens and tables of absolute positions, all of which have a first axis of 1."""
    width, num_global = stage.width, stage.num_global_tokens
    tables = {}
    if num_global:
        tables["cls_token"] = ("global_tokens", (1, num_global, width))
    if stage.position == "absolute":
        tables["x_pos_embed"] = ("position.rows", (1, grid[0], width // 2))
        tables["y_pos_embed"] = ("position.columns", (1, grid[1], width // 2))
        if num_global:
            tables["cls_pos_embed"] = ("position.global_tokens", (1, num_global, width))
        else:
            entries.derive(f"{old}cls_pos_embed")  # empty
    for name, (target, shape) in tables.items():
        entries.converted[f"{new}{target}"] = entries.move(f"{old}{name}", f"{new}{target}", shape)[0]


def attention_from_reference(
    entries: ReferenceEntries, old: str, new: str, stage: StageConfig, *, grid: tuple[int, int]
) -> None:
    """Convert one attention layer; `old` and `new` are the prefixes of its names."""
    width, projections = stage.width, f"{new}projections."
    rows: int | None = None  # of the table of relative positions
    match stage.attention:
        case Full():
            rows = (2 * grid[0] - 1) * (2 * grid[1] - 1)
            _joint_projections(entries, old, projections, width)
        case Performer(num_features=num_features):
            _joint_projections(entries, old, projections, width)
            shape = (num_features, width // stage.num_heads)
            entries.move_all(f"{old}fast_attention.projection_matrix", f"{new}projection", shape)
            entries.converted[f"{new}draws"] = torch.tensor([0, 0])  # no part of a published checkpoint
        case SpatialReduction(ratio=ratio):
            entries.move_layer(f"{old}query", f"{new}query", (width, width))
            entries.move_layer(f"{old}kv", f"{new}key_value", (2 * width, width))
            entries.move_layer(f"{old}proj", f"{new}proj", (width, width))
            entries.move_all(f"{old}proj_sr.weight", f"{new}reduction.weight", (width, width, ratio, ratio))
        case Linformer():
            _query_key_value(entries, old, projections, width)
            _token_projections(entries, old, new, stage, stage.attention, grid=grid)
        case Windowed() | GlobalOnly():
            if isinstance(stage.attention, Windowed):
                rows = (4 * stage.attention.window_size - 1) ** 2
            _query_key_value(entries, old, projections, width)
            if stage.attention.shared_global_projections or not stage.num_global_tokens:
                for name in ("query", "kv", "proj"):
                    entries.derive_repeated(f"{old}{name}", f"{old}{name}_global")
            else:
                _query_key_value(entries, old, projections, width, suffix="_global")
    entries.derive(f"{old}relative_position_index")
    if stage.position == "relative":
        _relative_position(entries, old, f"{new}position.", stage, rows=rows)


def _joint_projections(entries: ReferenceEntries, old: str, new: str, width: int) -> None:
    entries.move_layer(f"{old}qkv", f"{new}qkv", (3 * width, width))
    entries.move_layer(f"{old}proj", f"{new}proj", (width, width))


def _query_key_value(entries: ReferenceEntries, old: str, new: str, width: int, *, suffix: str = "") -> None:
    """Join separate query and key-value projections into one."""
    entries.move_layer(f"{old}proj{suffix}", f"{new}proj{suffix}", (width, width))
    for kind, shape in {"weight": (width,), "bias": ()}.items():
        target = f"{new}qkv{suffix}.{kind}"
        query = entries.move(f"{old}query{suffix}.{kind}", target, (width, *shape))
        key_value = entries.move(f"{old}kv{suffix}.{kind}", target, (2 * width, *shape))
        entries.converted[target] = torch.cat([query, key_value])


def _token_projections(
    entries: ReferenceEntries, old: str, new: str, stage: StageConfig, linformer: Linformer, *, grid: tuple[int, int]
) -> None:
    """Convert Linformer's matrices; a shared one is stored under both names."""
    shape = (stage.num_global_tokens + grid[0] * grid[1], linformer.num_features)
    entries.move_all(f"{old}proj_k", f"{new}key_features", shape)
    if linformer.shared_projection:
        remedy = "if keys and values have matrices of their own, say share_kv=False"
        entries.derive_equal(f"{old}proj_k", f"{old}proj_v", remedy=remedy)
    else:
        entries.move_all(f"{old}proj_v", f"{new}value_features", shape)


def _relative_position(entries: ReferenceEntries, old: str, new: str, stage: StageConfig, *, rows: int | None) -> None:
    """Convert bias tables. Global-only attention (`rows` None) uses those of the global queries alone."""
    heads, num_global = stage.num_heads, stage.num_global_tokens
    table, global_map = f"{old}local_relative_position_bias_table", f"{old}g2l_relative_position_bias"
    if rows is None:
        entries.derive(table)
    else:
        entries.move_all(table, f"{new}table", (rows, heads))
    if num_global:
        queries = new if rows is None else f"{new}global_queries."
        both = entries.move(global_map, f"{queries}to_map", (2, heads, num_global))
        entries.converted[f"{queries}to_map"] = both[0]
        if rows is not None:
            entries.report.renamed.append((global_map, f"{new}to_global"))
            entries.converted[f"{new}to_global"] = both[1]
        shape = (heads, num_global, num_global)
        entries.move_all(f"{old}g2g_relative_position_bias", f"{queries}to_global", shape)
