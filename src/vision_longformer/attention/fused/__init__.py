"""Windowed attention as one compiled kernel for CPUs: scores, softmax and weighted sums without leaving the cache."""

from vision_longformer.attention.fused.operator import (
    fused_windowed_attention,
    fused_windowed_attention_backward,
    is_supported,
)

__all__ = [
    "fused_windowed_attention",
    "fused_windowed_attention_backward",
    "is_supported",
]
