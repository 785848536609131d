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
    values = generator.standard_normal(tuple(shape), dtype=np.float32)
    *_, owner, leaf = ["", *name.split(".")]
    if name.startswith("input:") or name == "input":
        scale = 1.0
    elif "norm" in owner or leaf == "bias":
        scale = 0.1
    elif "relative_position_bias" in leaf or leaf in POSITION_TABLES:
        scale = 0.5
    else:
        fan_in = shape[0] if leaf in {"proj_k", "proj_v"} else math.prod(shape[1:])
        return torch.from_numpy(values / np.float32(math.sqrt(fan_in)))
    values = np.float32(scale) * values
    return torch.from_numpy(1 + values if "norm" in owner and leaf == "weight" else values)
