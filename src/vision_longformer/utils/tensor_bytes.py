"""Tensors as the bytes they hold."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def bytes_of(values: Tensor) -> NDArray[np.uint8]:
    """View the (n,) bytes of a contiguous tensor on the CPU; what is written there is in the tensor."""
    # Not `flatten`, which keeps the stride of a single element: a tensor of one is contiguous with any.
    flat = values.detach().as_strided((values.numel(),), (1,))
    array: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return array
