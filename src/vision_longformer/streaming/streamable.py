"""Which models can be streamed."""

from __future__ import annotations

from typing import cast

from vision_longformer.attention import GlobalOnlyAttention, WindowedAttention
from vision_longformer.backbone import Block, Stage, VisionLongformer

STREAMABLE = "windowed attention with chunk or exact windows, and global-only attention"


def check_streamable(model: VisionLongformer) -> None:
    """Refuse a model with a stage whose keys lie anywhere on the map.

    Raises:
        ValueError: Says which stage, and what can be streamed.
    """
    for number, stage in enumerate(model.stages, start=1):
        layer = cast(Block, cast(Stage, stage).blocks[0]).attn
        if isinstance(layer, WindowedAttention):
            if not layer.is_local:
                raise ValueError(
                    f"stage {number}: cyclic windows join opposite edges of the map: only {STREAMABLE} can be streamed"
                )
        elif not isinstance(layer, GlobalOnlyAttention):
            raise ValueError(
                f"stage {number}: {type(layer).__name__} needs the whole map at once: only {STREAMABLE} can be "
                "streamed; for a model whose name ends in _full, take the one without it, or turn its weights with "
                "`vil convert --windowed`"
            )
