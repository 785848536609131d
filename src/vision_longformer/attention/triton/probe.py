"""The smallest kernel there is, to see whether kernels can be compiled and launched at all."""

import torch
import triton
import triton.language as tl


@triton.jit
def write_one(x):
    """Write 1 to where `x` points."""
    tl.store(x, 1.0)


def probe(device: torch.device) -> None:
    """Compile a kernel and launch it; the errors of Triton, of its compilers and of the driver are many."""
    with torch.cuda.device(device):
        write_one[(1,)](torch.empty(1, device=device))
