"""Position tables of weights, fitted to other image sizes and windows."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from vision_longformer.attention.full import FullAttention, resize_step_table
from vision_longformer.attention.linformer import LinformerAttention, resize_features
from vision_longformer.attention.position import AbsolutePosition, resize_axis_table
from vision_longformer.attention.windowed import WindowedAttention
from vision_longformer.backbone import VisionLongformer


def resize_position_tables(state: Mapping[str, Tensor], model: VisionLongformer) -> dict[str, Tensor]:
    """Fit the position tables of a state dict, trained at some image size and window, to those of `model`.

    timm calls this on what it loads. Entries that fit, or are no such tables, are passed on.
    """
    state = dict(state)
    for name, module in model.named_modules():
        if isinstance(module, AbsolutePosition):
            for axis in ("rows", "columns"):
                key = f"{name}.{axis}"
                if key in state and len(state[key]) != len(getattr(module, axis)):
                    state[key] = resize_axis_table(state[key], len(getattr(module, axis)))
        elif isinstance(module, WindowedAttention) and module.position is not None:
            _fit_window(state, f"{name}.position.table", module.window)
        elif isinstance(module, FullAttention) and module.position is not None:
            key = f"{name}.position.table"
            if key in state and len(state[key]) != len(module.position.table):
                side = (math.isqrt(len(state[key])) + 1) // 2
                _require_square(key, state[key], rows=(2 * side - 1) ** 2)
                state[key] = resize_step_table(state[key], (side, side), module.grid)
        elif isinstance(module, LinformerAttention):
            num_global = module.num_global_tokens
            for table in ("key_features", "value_features"):
                key = f"{name}.{table}"
                if key in state and len(state[key]) != len(module.key_features):
                    side = math.isqrt(len(state[key]) - num_global)
                    _require_square(key, state[key], rows=num_global + side**2)
                    state[key] = resize_features(state[key], (side, side), module.grid, num_global_tokens=num_global)
    return state


def _require_square(key: str, table: Tensor, *, rows: int) -> None:
    if len(table) != rows:
        raise ValueError(
            f"{key} has {len(table)} rows, which belong to no square map: build the model with the img_size it was "
            "trained at, load it, then call set_input_size"
        )


def fit_positions(source: VisionLongformer, model: VisionLongformer) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights of `source` with its position tables fitted to `model`, and what was resized.

    Args:
        source: Its own tables are resized too.
        model: Of the image size and the windows that are wanted.
    """
    remarks = []
    if source.config.image_size != model.config.image_size:
        before, after = (f"{h}×{w}" for h, w in (source.config.image_size, model.config.image_size))
        tables = {name: tensor.shape for name, tensor in source.state_dict().items()}
        source.set_input_size(model.config.image_size)
        resized = [name for name, tensor in source.state_dict().items() if tensor.shape != tables[name]]
        remarks += [f"{name}: resized from images of {before} to {after}" for name in resized]
    state = source.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, WindowedAttention) and module.position is not None:
            remarks += _fit_window(state, f"{name}.position.table", module.window)
    return state, remarks


def _fit_window(state: dict[str, Tensor], name: str, window: int) -> list[str]:
    """Stretch a table of relative positions to another window, as the published code does for fine-tuning."""
    table = state.get(name)
    if table is None or len(table) == (4 * window - 1) ** 2:
        return []
    before = (round(len(table) ** 0.5) + 1) // 4
    if (4 * before - 1) ** 2 != len(table):
        return []  # of another mechanism: `load_exactly` lists it
    state[name] = resize_step_table(table, (2 * before, 2 * before), (2 * window, 2 * window))
    return [f"{name}: resized from windows of {before} to {window}"]
