"""Calling the compiled bias and GELU with tensors."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from vision_longformer.attention.fused import build
from vision_longformer.attention.tracing import is_hooked, is_traced


def is_gelu_supported(x: Tensor, linear: nn.Module, activation: nn.Module) -> bool:
    """Tell whether `add_bias_gelu_` can take the place of a linear layer's bias and of the activation after it.

    It cannot where anybody wants to see what is between them, or where one of them has been replaced.
    """
    if type(linear) is not nn.Linear or type(activation) is not nn.GELU or activation.approximate != "none":
        return False
    if is_hooked(linear) or is_hooked(activation):
        return False
    if torch.is_grad_enabled() or is_traced() or torch.is_autocast_enabled(x.device.type):
        return False
    parts = (x, linear.weight, linear.bias)
    if any(part is None or part.device.type != "cpu" or part.dtype != torch.float32 for part in parts):
        return False
    return build.kernel() is not None


@torch.library.custom_op("vision_longformer::add_bias_gelu_", mutates_args=("x",))
def add_bias_gelu_(x: Tensor, bias: Tensor) -> None:
    """Replace (..., C) `x` by GELU(x + bias), exact up to rounding, where `is_gelu_supported`.

    Args:
        x: Contiguous, float32.
        bias: (C,) float32.
    """
    library = build.kernel()
    if library is None or not x.is_contiguous():
        raise ValueError("the kernel cannot be used here, see `is_gelu_supported`")
    bias = bias.contiguous()
    width = bias.shape[0]
    getattr(library, build.GELU)(
        ctypes.c_void_p(x.data_ptr()),
        ctypes.c_void_p(bias.data_ptr()),
        ctypes.c_int64(x.numel() // max(width, 1)),
        ctypes.c_int64(width),
    )
