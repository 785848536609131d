"""Windowed attention as one compiled kernel for CPUs: scores, softmax and weighted sums without leaving the cache.

Also what stands between the two products of an MLP.
"""

from vision_longformer.attention.fused.gelu import add_bias_gelu_, is_gelu_supported
from vision_longformer.attention.fused.operator import (
    fused_windowed_attention,
    fused_windowed_attention_backward,
    is_supported,
)

__all__ = [
    "add_bias_gelu_",
    "fused_windowed_attention",
    "fused_windowed_attention_backward",
    "is_gelu_supported",
    "is_supported",
]
