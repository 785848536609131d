"""What one layer may cost before it is refused rather than begun."""

from __future__ import annotations

import torch

MAX_MULTIPLY_ADDS = 2e13  # of one layer: minutes on a CPU


def refuse_hopeless(mechanism: str, *, height: int, width: int, multiply_adds: float) -> None:
    """Refuse a layer of a quadratic `mechanism` over a map of H×W tokens that would take minutes.

    Raises:
        ValueError: Says what it would cost and what to use instead.
    """
    if not torch.compiler.is_compiling() and multiply_adds > MAX_MULTIPLY_ADDS:
        raise ValueError(
            f"{mechanism} over a map of {height}×{width} tokens needs {multiply_adds:.1e} multiply-adds in one layer, "
            f"more than {MAX_MULTIPLY_ADDS:.0e}: use windowed attention, whose cost is linear (a model whose name "
            "does not end in _full, or `vil convert --windowed`), or a smaller image"
        )
