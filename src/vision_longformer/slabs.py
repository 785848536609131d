"""Linear layers over a few tokens at a time, so that what lies between one layer and the next stays in cache.

n tokens, C and C' channels
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook as has_any_global_hook

SLAB_TOKENS = 4096


def slabs(tokens: int) -> Iterator[slice]:
    """Yield the places of so many tokens, slab by slab."""
    for start in range(0, tokens, SLAB_TOKENS):
        yield slice(start, min(start + SLAB_TOKENS, tokens))


def slab_bytes(tokens: int, channels: int, itemsize: int) -> int:
    """Return what a slab takes in a block: normalised, 4C channels twice, and transformed."""
    return min(tokens, SLAB_TOKENS) * 10 * channels * itemsize


def is_traced() -> bool:
    """Tell whether what runs is recorded or transformed, as by `torch.func`.

    A loop over a number of tokens would be recorded for that number only, and results cannot be written in place.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    return torch._C._functorch.maybe_current_level() is not None


def is_forward_mode() -> bool:
    """Tell whether derivatives are carried forward, as by `torch.func.jvp`, for which custom operators have no formula.

    They would be taken for constants, without a word.
    """
    return torch.autograd.forward_ad._current_level >= 0


def is_watched(module: nn.Module) -> bool:
    """Tell whether somebody hooked into a module or a part of it, or put another `forward` into one.

    They should see all tokens at once.
    """
    if has_any_global_hook():
        return True
    return any(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in module.modules())


def linear_into(out: Tensor, linear: nn.Module, x: Tensor) -> None:
    """Write what a linear layer makes of (n, C) `x` to (n, C') `out`; at once, unless something has replaced it."""
    if type(linear) is nn.Linear and not is_watched(linear):
        torch.addmm(linear.bias, x, linear.weight.t(), out=out)
    else:
        out.copy_(linear(x))
