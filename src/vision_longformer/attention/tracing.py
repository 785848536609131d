"""Who records, transforms or watches what a module does, and so must see all tokens at once."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook as has_any_global_hook


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


def is_hooked(module: nn.Module) -> bool:
    """Tell whether somebody hooked into a module or a part of it, or put another `forward` into one."""
    if has_any_global_hook():
        return True
    return any(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in module.modules())
