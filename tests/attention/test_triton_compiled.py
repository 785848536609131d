"""The Triton kernels compiled for GPUs that are not there: tensor cores, registers, shared memory."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource, make_backend  # noqa: E402
from triton.runtime.jit import create_function_from_signature  # noqa: E402

from vision_longformer.attention.triton.launches import NUM_STAGES, NUM_WARPS, Call, Launch  # noqa: E402
from vision_longformer.attention.triton.operator import Inputs  # noqa: E402

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
SHARED_MEMORY = 99 * 1024  # of a program on the cards of people's desks; more on those of data centres


@dataclass(frozen=True)
class Compiled:
    """What came out: matrix instructions, registers of a thread, bytes of them that went to memory, shared memory."""

    matrix_instructions: set[str]
    registers: int
    spilled: int
    shared: int


def plan(
    dtype: torch.dtype, head_width: int, *, size: tuple[int, int] = (50, 60), precision: str = "tf32", **settings: Any
) -> list[Launch]:
    """Return all launches of a forward and backward pass over two images of `size` tokens."""
    images, (height, width), heads, window = 2, size, 3, settings.pop("window", 7)
    drawn, masked = settings.pop("drawn", False), settings.pop("masked", False)
    with torch.device("meta"):
        qkv = torch.empty(images, height, width, 3, heads, head_width, dtype=dtype)
        inputs = Inputs(
            query=qkv[:, :, :, 0],
            key_value=qkv[:, :, :, 1:],
            global_key_value=torch.empty(images, 1, 3, heads, head_width, dtype=dtype)[:, :, 1:],
            table=torch.empty((4 * window - 1) ** 2, heads),
            global_bias=torch.empty(heads, 1),
            valid=torch.empty(images, height, width, dtype=torch.bool) if masked else None,
            sizes=torch.empty(images, 2, dtype=torch.int64) if masked else None,
            drawn=torch.empty(1, dtype=torch.int64) if drawn else None,
            window=window,
            **{"around": not drawn, "exact": False, "cyclic": False, "top": 0, "left": 0, **settings},
        )
        call = Call(inputs, precision=precision)
        out, logsumexp = torch.empty_like(qkv[:, :, :, 0]), torch.empty(images, heads, height, width)
        backward = call.backward(call.new_gradients(), grad=out, out=out, logsumexp=logsumexp)
        return call.forward(out=out, logsumexp=logsumexp) + backward


def source(launch: Launch) -> ASTSource:
    """Return what Triton compiles where `Launch.run` is called with these arguments."""
    kernel, backend = launch.kernel, make_backend(GPUTarget("cuda", 80, 32))
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, options = bind(**launch.arguments)
    _, signature, constants, attributes = kernel._pack_args(backend, options, bound, specialization, None)
    return ASTSource(kernel, signature, constants, attributes)


def compile_for(capability: int, launch: Launch) -> Compiled:
    options = {"num_warps": NUM_WARPS, "num_stages": NUM_STAGES}
    kernel = triton.compile(source(launch), target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        dump = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        )
    usage = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", dump.stdout)
    assert usage is not None, dump.stdout
    registers, stack, local = map(int, usage.groups())
    return Compiled(
        matrix_instructions=set(re.findall(r"\b(wgmma\.mma_async|mma\.sync)\b", kernel.asm["ptx"])),
        registers=registers,
        spilled=stack + local,
        shared=kernel.metadata.shared,
    )


# Head widths of the published models; some bytes of spilling are let pass.
PLANS: dict[str, tuple[int, dict[str, Any]]] = {
    "bfloat16": (0, {"dtype": torch.bfloat16, "head_width": 32}),
    "bfloat16, 48 channels, drawn": (32, {"dtype": torch.bfloat16, "head_width": 48, "drawn": True}),
    "float16, 64 channels, masked": (64, {"dtype": torch.float16, "head_width": 64, "masked": True}),
    "float32 as tf32": (0, {"dtype": torch.float32, "head_width": 32}),
}


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("bfloat16", 80),
        ("bfloat16", 90),
        ("float32 as tf32", 90),
        pytest.param("float32 as tf32", 80, marks=pytest.mark.long),
        *[pytest.param(name, at, marks=pytest.mark.long) for name in list(PLANS)[1:3] for at in (80, 90)],
    ],
)
def test_compiled_for_tensor_cores(name: str, capability: int) -> None:
    spilled, settings = PLANS[name]
    launches = plan(**settings)
    assert len(launches) == 5
    for launch in launches:
        compiled = compile_for(capability, launch)
        at = (launch.kernel.__name__, compiled)
        assert compiled.spilled <= spilled, at
        assert compiled.shared <= SHARED_MEMORY, at
        assert compiled.registers <= 255, at
        if launch.kernel.__name__ != "table_backward":
            assert {80: "mma.sync", 90: "wgmma.mma_async"}[capability] in compiled.matrix_instructions, at


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": torch.float32, "head_width": 32, "precision": "ieee"},
        {"dtype": torch.float16, "head_width": 128, "cyclic": True, "masked": True},
        pytest.param({"dtype": torch.bfloat16, "head_width": 8, "window": 15, "exact": True}, marks=pytest.mark.long),
    ],
)
def test_other_kinds_compile_for_the_oldest_gpus(settings: dict[str, Any]) -> None:
    for launch in plan(**settings):
        compiled = compile_for(80, launch)
        at = (launch.kernel.__name__, compiled)
        assert compiled.spilled <= 128, at
        assert compiled.shared <= SHARED_MEMORY, at
        exact = settings.get("precision") == "ieee" or launch.kernel.__name__ == "table_backward"
        assert compiled.matrix_instructions == (set() if exact else {"mma.sync"}), at


def test_a_kernel_is_compiled_once_for_all_maps() -> None:
    """Sizes are no constants: what is compiled depends on strides' divisibility alone."""
    launches = [plan(torch.bfloat16, 32, size=size) for size in ((50, 60), (1, 16), (16, 1))]
    for kernels in zip(*launches, strict=True):
        sources = [(x.signature, x.constants, x.attrs) for x in map(source, kernels)]
        assert sources[0] == sources[1] == sources[2], kernels[0].kernel.__name__
