"""Windowed attention on GPUs as one operator.

B batch, H×W map of queries, H'×W' map of keys, h heads, d head width, G global tokens, w window

Tracing sees one call whatever the size of the map. No tensor of a call is on another device than the queries, and
nothing waits for the device, so calls can be recorded and replayed (CUDA graphs).
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("vision_longformer::windowed_attention_triton", mutates_args=())
def windowed_attention_triton(
    query: Tensor,  # (B, H, W, h, d)
    key_value: Tensor,  # (B, H', W', 2, h, d)
    global_key_value: Tensor,  # (B, G, 2, h, d)
    table: Tensor | None,  # ((4w − 1)², h)
    global_bias: Tensor | None,  # (h, G)
    valid: Tensor | None,  # (B, H', W'), false at keys that nothing may see, and at queries that get zeros
    sizes: Tensor | None,  # (B, 2)
    drawn: Tensor | None,  # (1,)
    window: int,
    around: bool,
    exact: bool,
    cyclic: bool,
    top: int,
    left: int,
) -> tuple[Tensor, Tensor]:
    """Return (B, H, W, h, d), and (B, h, H, W) logarithms of the sums of exp(score), ∞ at queries without a key.

    See `launches.Settings` and `launches.Inputs`.
    """
    from vision_longformer.attention.triton.launches import accurate_type

    batch, height, width, heads, _ = query.shape
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    logsumexp = query.new_empty((batch, heads, height, width), dtype=accurate_type(query.dtype))
    if out.numel():
        tensors = (query, key_value, global_key_value, table, global_bias, valid, sizes, drawn)
        call = _call(*tensors, window, around, exact, cyclic, top, left)
        with _on_device_of(query):
            for launch in call.forward(out=out, logsumexp=logsumexp):
                launch.run()
    return out, logsumexp


@windowed_attention_triton.register_fake
def _(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    batch, height, width, heads, _head_width = query.shape
    accurate = torch.promote_types(query.dtype, torch.float32)
    return query.new_empty(query.shape), query.new_empty((batch, heads, height, width), dtype=accurate)


@torch.library.custom_op("vision_longformer::windowed_attention_triton_backward", mutates_args=())
def windowed_attention_triton_backward(
    grad: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    query: Tensor,
    key_value: Tensor,
    global_key_value: Tensor,
    table: Tensor | None,
    global_bias: Tensor | None,
    valid: Tensor | None,
    sizes: Tensor | None,
    drawn: Tensor | None,
    window: int,
    around: bool,
    exact: bool,
    cyclic: bool,
    top: int,
    left: int,
) -> list[Tensor]:
    """Return gradients for the tensors among the first five inputs, of their types; `out`, `logsumexp` as they were."""
    inputs = (query, key_value, global_key_value, table, global_bias)
    if query.numel() == 0:
        return [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in inputs if x is not None]
    call = _call(*inputs, valid, sizes, drawn, window, around, exact, cyclic, top, left)
    gradients = call.new_gradients()
    with _on_device_of(query):
        for launch in call.backward(gradients, grad=grad.contiguous(), out=out, logsumexp=logsumexp):
            launch.run()
    results = [gradients.query, gradients.key_value, gradients.global_parts.sum(1).to(query.dtype)]
    if gradients.table is not None:
        results.append(gradients.table)
    if global_bias is not None and gradients.global_bias_parts is not None:
        results.append(gradients.global_bias_parts.sum((0, 1)).t().to(global_bias.dtype).contiguous())
    return results


@windowed_attention_triton_backward.register_fake
def _(grad: Tensor, out: Tensor, logsumexp: Tensor, *inputs: Any) -> list[Tensor]:
    return [x.new_empty(x.shape) for x in inputs[:5] if x is not None]


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.settings = inputs[8:]
    ctx.save_for_backward(*output, *inputs[:8])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # once, as activation checkpointing allows
    inputs = saved[2:]
    if grad is None:
        return (None,) * (len(inputs) + len(ctx.settings))
    grads = iter(windowed_attention_triton_backward(grad, *saved, *ctx.settings))
    differentiable = [None if x is None else next(grads) for x in inputs[:5]]
    return (*differentiable, *[None] * (len(inputs) - 5 + len(ctx.settings)))


windowed_attention_triton.register_autograd(_backward, setup_context=_save_for_backward)


def _call(*arguments: Any) -> Any:
    """Return `launches.Call` for the arguments of the operator."""
    from vision_longformer.attention.triton.launches import Call, Inputs, Settings

    query, key_value, global_key_value, table, global_bias, valid, sizes, drawn, *settings = arguments
    inputs = Inputs(
        query=_packed(query),
        key_value=_packed(key_value),
        global_key_value=_packed(global_key_value),
        table=None if table is None else table.t().contiguous(),
        global_bias=None if global_bias is None else global_bias.contiguous(),
        valid=None if valid is None else valid.contiguous(),
        sizes=None if sizes is None else sizes.contiguous(),
        drawn=drawn,
    )
    names = ("window", "around", "exact", "cyclic", "top", "left")
    return Call(inputs, Settings(**dict(zip(names, settings, strict=True))), precision=_float32_precision())


def _packed(x: Tensor) -> Tensor:
    """Return `x` with its channels side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _float32_precision() -> str:
    """Return what products of float32 matrices are to be, as PyTorch's own: see `set_float32_matmul_precision`."""
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


def _on_device_of(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Launch on the device of a tensor: Triton launches on the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
