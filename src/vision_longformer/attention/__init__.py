"""The attention mechanisms, and the one place that chooses among them."""

from __future__ import annotations

from typing import Any

from torch import nn

from vision_longformer.attention.full import FullAttention
from vision_longformer.attention.global_only import GlobalOnlyAttention
from vision_longformer.attention.linformer import LinformerAttention
from vision_longformer.attention.performer import PerformerAttention
from vision_longformer.attention.spatial_reduction import SpatialReductionAttention
from vision_longformer.attention.windowed import WindowedAttention
from vision_longformer.config import Full, GlobalOnly, Linformer, Performer, SpatialReduction, StageConfig, Windowed

__all__ = [
    "FullAttention",
    "GlobalOnlyAttention",
    "LinformerAttention",
    "PerformerAttention",
    "SpatialReductionAttention",
    "WindowedAttention",
    "build_attention",
]


def build_attention(stage: StageConfig, *, grid: tuple[int, int]) -> nn.Module:
    """Build the attention of one block.

    Args:
        stage: The stage the block belongs to.
        grid: (height, width) of its map in tokens, for tables that are sized for it.

    Returns:
        A module that maps (B, H, W, C) and (B, G, C) tokens, and what of the map is real, to both tokens again.
    """
    shape: dict[str, Any] = {"width": stage.width, "num_heads": stage.num_heads}
    globals_and_biases: dict[str, Any] = {
        "num_global_tokens": stage.num_global_tokens,
        "relative_position": stage.position == "relative",
    }
    match stage.attention:
        case Windowed():
            return WindowedAttention(stage.attention, **shape, **globals_and_biases)
        case Full():
            return FullAttention(**shape, **globals_and_biases, grid=grid)
        case GlobalOnly():
            return GlobalOnlyAttention(stage.attention, **shape, **globals_and_biases)
        case Linformer():
            return LinformerAttention(stage.attention, **shape, num_global_tokens=stage.num_global_tokens, grid=grid)
        case SpatialReduction():
            return SpatialReductionAttention(stage.attention, **shape)
        case Performer():
            return PerformerAttention(stage.attention, **shape)
