"""Windowed attention on GPUs as one operator.

B batch, H×W map of queries, H'×W' map of keys, h heads, d head width, G global tokens, w window

Tracing sees one call whatever the size of the map. No tensor of a call is on another device than the queries, and
nothing waits for the device, so calls can be recorded and replayed (CUDA graphs).
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import torch
from torch import Tensor

# The fields of `Inputs`, as operators of PyTorch declare them
SCHEMA = (
    "Tensor query, Tensor key_value, Tensor global_key_value, Tensor? table, Tensor? global_bias, Tensor? valid, "
    "Tensor? sizes, Tensor? drawn, int window, bool around, bool exact, bool cyclic, int top, int left"
)


class Inputs(NamedTuple):
    """What a call is given.

    Attributes:
        query: (B, H, W, h, d) with any strides, as all that follows.
        key_value: (B, H', W', 2, h, d).
        global_key_value: (B, G, 2, h, d).
        table: ((4w − 1)², h) biases by relative position, or None.
        global_bias: (h, G), or None.
        valid: (B, H', W') boolean, false at keys that nothing may see, and at queries that get zeros; or None.
        sizes: (B, 2) integers, which only cyclic windows need, or None.
        drawn: (1,) integer, the number in `geometry.NEIGHBOURS` of a chunk that is seen beside the own, or None.
        window: Side w of a chunk.
        around: Whether all 8 chunks around a query's own are seen; else its own, and the one that was drawn if any.
        exact: Whether only keys up to w rows and w columns away are seen.
        cyclic: Whether chunks wrap around the edges of each image's own map. Then H'×W' is H×W.
        top: Where the queries' first row stands in the map of keys.
        left: The same for the first column.
    """

    query: Tensor
    key_value: Tensor
    global_key_value: Tensor
    table: Tensor | None
    global_bias: Tensor | None
    valid: Tensor | None
    sizes: Tensor | None
    drawn: Tensor | None
    window: int
    around: bool
    exact: bool
    cyclic: bool
    top: int
    left: int


@torch.library.custom_op(
    "vision_longformer::windowed_attention_triton", mutates_args=(), schema=f"({SCHEMA}) -> (Tensor, Tensor)"
)
def windowed_attention_triton(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Attend; the arguments are those of `Inputs`.

    Returns:
        (B, H, W, h, d), and (B, h, H, W) logarithms of the sums of exp(score), ∞ at queries without a key.
    """
    from vision_longformer.attention.triton.launches import Call, accurate_type

    inputs = Inputs(*arguments)
    query = inputs.query
    batch, height, width, heads, _ = query.shape
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    logsumexp = query.new_empty((batch, heads, height, width), dtype=accurate_type(query.dtype))
    if out.numel():
        call = Call(inputs, precision=_float32_precision())
        with _on_device_of(query):
            for launch in call.forward(out=out, logsumexp=logsumexp):
                launch.run()
    return out, logsumexp


@windowed_attention_triton.register_fake
def _(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    batch, height, width, heads, _head_width = query.shape
    accurate = torch.promote_types(query.dtype, torch.float32)
    return query.new_empty(query.shape), query.new_empty((batch, heads, height, width), dtype=accurate)


@torch.library.custom_op(
    "vision_longformer::windowed_attention_triton_backward",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor out, Tensor logsumexp, {SCHEMA}) -> Tensor[]",
)
def windowed_attention_triton_backward(grad: Tensor, out: Tensor, logsumexp: Tensor, *arguments: Any) -> list[Tensor]:
    """Return gradients for the tensors among the first five inputs, of their types; `out`, `logsumexp` as they were."""
    from vision_longformer.attention.triton.launches import Call

    inputs = Inputs(*arguments)
    query, global_bias = inputs.query, inputs.global_bias
    if query.numel() == 0:
        return [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in inputs[:5] if x is not None]
    call = Call(inputs, precision=_float32_precision())
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


def _float32_precision() -> str:
    """Return what products of float32 matrices are to be, as PyTorch's own: see `set_float32_matmul_precision`."""
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


def _on_device_of(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Launch on the device of a tensor: Triton launches on the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
