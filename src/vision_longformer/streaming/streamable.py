"""Which attention can be streamed."""

from __future__ import annotations

from torch import nn

from vision_longformer.attention import GlobalOnlyAttention, WindowedAttention

STREAMABLE = "windowed attention with chunk or exact windows, and global-only attention"


def check_streamable(layer: nn.Module) -> None:
    """Refuse a layer whose keys lie anywhere on the map.

    Raises:
        ValueError: Says which layers can be streamed.
    """
    if isinstance(layer, WindowedAttention):
        if not layer.is_local:
            raise ValueError(f"cyclic windows join opposite edges of the map: only {STREAMABLE} can be streamed")
    elif not isinstance(layer, GlobalOnlyAttention):
        raise ValueError(
            f"{type(layer).__name__} needs the whole map at once: only {STREAMABLE} can be streamed; for a model whose "
            "name ends in _full, take the one without it, or turn its weights with `vil convert --windowed`"
        )
