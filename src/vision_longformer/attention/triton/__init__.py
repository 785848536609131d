"""Windowed attention on GPUs as kernels in Triton: scores, softmax and weighted sums without leaving the processor.

Triton itself is imported when something is to be computed by it.
"""

from vision_longformer.attention.triton.operator import windowed_attention_triton
from vision_longformer.attention.triton.usable import is_installed, is_supported

__all__ = ["is_installed", "is_supported", "windowed_attention_triton"]
