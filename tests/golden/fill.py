"""Parameters and inputs of the golden cases: made from a tensor's name, so that no weights need storing."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

POSITION_TABLES = {"cls_token", "cls_pos_embed", "x_pos_embed", "y_pos_embed"}


def fill(name: str, shape: Sequence[int]) -> Tensor:
    """Return the float32 tensor that the cases call `name`: normal values from PCG64, seeded by the name's CRC-32."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    values = torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))
    *_, owner, leaf = ["", *name.split(".")]
    if name == "input" or name.startswith("input:"):
        return values
    if "norm" in owner:
        return 1 + 0.1 * values if leaf == "weight" else 0.1 * values
    if leaf == "bias":
        return 0.1 * values
    if "relative_position_bias" in leaf or leaf in POSITION_TABLES:
        return 0.5 * values
    if leaf in {"proj_k", "proj_v"}:
        return values / np.float32(math.sqrt(shape[0]))
    if len(shape) >= 2:
        return values / np.float32(math.sqrt(math.prod(shape[1:])))
    return values
