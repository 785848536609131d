"""What models compute in, for whoever must know it before PyTorch is imported."""

from __future__ import annotations

from typing import Literal, get_args

Precision = Literal["float32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
