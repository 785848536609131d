"""Where the kernels can be used."""

from __future__ import annotations

import functools
import importlib.util
import warnings

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_HEAD_WIDTH = 128
CAPABILITY = (8, 0)  # of the oldest GPUs that Triton compiles for


def is_installed() -> bool:
    """Tell whether there is a Triton to be imported."""
    return importlib.util.find_spec("triton") is not None


def is_supported(query: Tensor) -> bool:
    """Tell whether the kernels can be used for (..., h, d) queries: for their type, and on their device."""
    if query.device.type != "cuda" or query.dtype not in DTYPES or query.shape[-1] > MAX_HEAD_WIDTH:
        return False
    return bool(_known_while_tracing(query.device.index or 0))


@functools.cache
def runs_on(device: int) -> bool:
    """Tell whether kernels run on a GPU, after one warning for each process and GPU where they should but do not."""
    if torch.version.cuda is None or torch.cuda.get_device_capability(device) < CAPABILITY or not is_installed():
        return False
    try:
        from vision_longformer.attention.triton.probe import probe

        probe(torch.device("cuda", device))
    except Exception as error:  # of many kinds: no compiler, no driver, a card that is too new
        reason = (str(error).strip() or repr(error)).splitlines()[-1]
        warnings.warn(
            f"windowed attention runs without its Triton kernels, which is slower: {reason}",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def _ask(device: int) -> bool:
    return runs_on(device)


_known_while_tracing = torch.compiler.assume_constant_result(_ask)  # it looks at the machine, not at tensors
