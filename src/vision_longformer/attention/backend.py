"""Which implementation of windowed attention runs."""

from __future__ import annotations

from typing import Literal, get_args

from vision_longformer.attention import triton
from vision_longformer.attention.fused import build
from vision_longformer.attention.tracing import is_forward_mode

AttentionBackend = Literal["auto", "fused", "triton", "sdpa", "dense"]

_chosen: AttentionBackend = "auto"


def set_attention_backend(name: AttentionBackend) -> None:
    """Choose what computes windowed attention, in this process, from the next call on.

    All give the same result, up to rounding.

    Args:
        name:
            "auto", the default: the kernel for CPUs or those for GPUs where they can be used, else "sdpa".
            "fused": the compiled kernel. It computes float32 and bfloat16 on CPUs; other calls take "sdpa". Unlike
            "auto" it is compiled now, and it is an error if it cannot be.
            "triton": kernels for GPUs of compute capability 8.0 or higher, compiled when they are first called. They
            compute float32, bfloat16 and float16 with heads up to 128 channels wide; other calls are as under "auto".
            It is an error if there is no Triton.
            "sdpa": gathered neighbourhoods and `torch.nn.functional.scaled_dot_product_attention`, on any device.
            "dense": all scores of the map and a mask: quadratic in time and memory, short and easy to follow.
            Forward-mode derivatives (`torch.func.jvp`) always take it.

    Raises:
        ValueError: No such name.
        RuntimeError: "fused", and the kernel cannot be compiled; the message of the warning beside it says why. Or
            "triton", and it is not installed.
    """
    global _chosen  # noqa: PLW0603
    if name not in get_args(AttentionBackend):
        raise ValueError(f"attention backend {name!r}: must be one of {', '.join(get_args(AttentionBackend))}")
    if name == "fused" and build.kernel() is None:
        raise RuntimeError("the fused kernel cannot be compiled on this machine: choose 'auto' or 'sdpa'")
    if name == "triton" and not triton.is_installed():
        raise RuntimeError("Triton is not installed, which PyTorch brings on Linux: choose 'auto' or 'sdpa'")
    _chosen = name


def attention_backend() -> AttentionBackend:
    """Return the name that was chosen; "dense" where derivatives are carried forward (`torch.func.jvp`)."""
    return "dense" if is_forward_mode() else _chosen
