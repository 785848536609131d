"""The path for GPUs, on a machine without one: kernels in the interpreter and compiled, the operator, the model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model_helpers import config
from vision_longformer import Windowed, set_attention_backend
from vision_longformer.attention import triton, windowed
from vision_longformer.attention.triton import usable, windowed_attention_triton
from vision_longformer.attention.triton.operator import Inputs
from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import WindowShape
from vision_longformer.padding import Padding, find_padding

TESTS = Path(__file__).parents[1]
SETTINGS: tuple[Any, ...] = (None, None, None, 7, True, False, False, 0, 0)  # no masks, w = 7, all around
OPERATORS = ("windowed_attention_triton", "windowed_attention_triton_backward")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    set_attention_backend("auto")


def interpret(*options: str) -> None:
    """Run the tests of `interpreted_triton.py`, which need a process of their own."""
    pytest.importorskip("triton")
    path = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *options]
    file = TESTS / "attention" / "interpreted_triton.py"
    run = subprocess.run(
        [*command, file], env=environment, cwd=TESTS.parent, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-5000:]


def test_kernels_in_the_interpreter() -> None:
    interpret("-m", "not long")


@pytest.mark.long
def test_kernels_in_the_interpreter_at_length() -> None:
    interpret("-m", "long")


# --- without a GPU, and without Triton ----------------------------------------------------------------------------


def test_package_does_not_import_triton() -> None:
    code = """
import sys
sys.modules["triton"] = None
import torch
import vision_longformer
from vision_longformer import StageConfig
from vision_longformer.attention import build_attention
layer = build_attention(StageConfig(depth=1, width=8, num_heads=1), grid=(8, 8))
layer(torch.randn(1, 8, 8, 8), torch.randn(1, 1, 8))
try:
    vision_longformer.set_attention_backend("triton")
except RuntimeError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent / "src")}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("Triton is not installed, which PyTorch brings on Linux: choose 'auto' or 'sdpa'")


def test_calls_on_cpus_are_as_under_auto() -> None:
    pytest.importorskip("triton")
    set_attention_backend("triton")
    assert not windowed.takes_triton(torch.empty(1, 4, 4, 1, 8))


@pytest.fixture
def usable_gpu() -> Iterator[None]:
    with mock.patch.object(usable, "runs_on", return_value=True):
        yield


@pytest.mark.usefixtures("usable_gpu")
@pytest.mark.parametrize(
    ("dtype", "head_width", "expected"),
    [
        (torch.float32, 8, True),
        (torch.bfloat16, 128, True),
        (torch.float16, 48, True),
        (torch.float64, 32, False),
        (torch.float32, 129, False),
    ],
)
def test_which_calls_are_supported(dtype: torch.dtype, head_width: int, expected: bool) -> None:
    with FakeTensorMode():
        query = torch.empty(1, 4, 4, 1, head_width, dtype=dtype, device="cuda")
        assert triton.is_supported(query) == expected
        for name in ("auto", "fused", "sdpa", "dense"):
            set_attention_backend(name)
            assert windowed.takes_triton(query) == (expected and name == "auto")


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
@pytest.mark.parametrize("fails", [False, True])
def test_which_gpus_are_supported(capability: tuple[int, int], expected: bool, fails: bool) -> None:
    probe = pytest.importorskip("vision_longformer.attention.triton.probe")
    usable.runs_on.cache_clear()
    failure = RuntimeError("Failed to find C compiler.") if fails else None
    with (
        mock.patch.object(torch.version, "cuda", "13.0"),
        mock.patch.object(torch.cuda, "get_device_capability", return_value=capability),
        mock.patch.object(probe, "probe", side_effect=failure),
    ):
        if expected and fails:
            with pytest.warns(RuntimeWarning, match="without its Triton kernels, which is slower: Failed to find C"):
                assert not usable.runs_on(0)
        else:
            assert usable.runs_on(0) == expected
    usable.runs_on.cache_clear()


# --- a model on a GPU that is not there -----------------------------------------------------------------------------


def _always(_: Tensor) -> bool:  # no mock, which cannot be traced
    return True


class Watch(TorchDispatchMode):
    """Counts operators, and refuses what waits for a GPU: a copy from or to the CPU, operands on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split("::")[1]
        self.counts[name] = self.counts.get(name, 0) + 1
        out = func(*args, **(kwargs or {}))
        operands = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        assert all(x.device.type != "cpu" for x in operands), f"{func} has an operand on the CPU"
        assert "_local_scalar_dense" not in name, func
        return out


def on(device: str, model: nn.Module) -> nn.Module:
    """Put parameters and buffers without values on a device."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(torch.empty(parameter.shape, device=device))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
    return model


def build(**options: Any) -> VisionLongformer:
    neighbours = options.pop("neighbours", "all")
    shapes: tuple[WindowShape, ...] = ("chunk", "cyclic", "chunk" if neighbours == "random" else "exact")
    stages = [Windowed(window_size=3, shape=shape, neighbours=neighbours) for shape in shapes]
    return VisionLongformer(config(*stages, **options))


@pytest.mark.usefixtures("usable_gpu")
@pytest.mark.parametrize("position", ["relative", "absolute"])
@pytest.mark.parametrize("padded", [False, True])
def test_inference_waits_for_nothing(position: Any, padded: bool) -> None:
    model = build(position=position).eval()
    blocks = sum(len(stage.blocks) for stage in model.stages)  # type: ignore[arg-type, misc]
    with FakeTensorMode():
        on("cuda", model)
        images = torch.empty(2, 3, 203, 170, device="cuda")
        sizes = torch.empty(2, 2, dtype=torch.int64, device="cuda") if padded else None
        with torch.no_grad(), Watch() as watch:
            assert model(images, image_sizes=sizes).device.type == "cuda"
        assert watch.counts[OPERATORS[0]] == blocks


@pytest.mark.usefixtures("usable_gpu")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_inference_is_one_graph_without_tensors_on_the_cpu() -> None:
    torch.compiler.reset()
    model = build(position="absolute").eval()
    blocks = sum(len(stage.blocks) for stage in model.stages)  # type: ignore[arg-type, misc]
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    with FakeTensorMode():
        on("cuda", model)
        compiled = torch.compile(model, backend=keep, fullgraph=True)
        with torch.no_grad():
            for _ in range(2):
                out = compiled(torch.empty(2, 3, 96, 80, device="cuda"), valid=torch.ones(2, 96, 80, device="cuda") > 0)
    assert out.shape == (2, model.num_classes)
    (graph,) = graphs
    for node in graph.graph.nodes:
        tensors = [x for x in tree_leaves(node.meta.get("example_value")) if isinstance(x, Tensor)]
        assert all(x.device.type == "cuda" for x in tensors), node.format_node()
    assert sum(OPERATORS[0] in str(node.target) for node in graph.graph.nodes) == blocks
    torch.compiler.reset()


@pytest.mark.parametrize("neighbours", ["all", "own", "random"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_step_waits_for_nothing(neighbours: Any, checkpointing: bool) -> None:
    model = build(neighbours=neighbours, drop_path_rate=0.1).train()
    model.set_grad_checkpointing(checkpointing)
    blocks = sum(len(stage.blocks) for stage in model.stages)  # type: ignore[arg-type, misc]
    on("meta", model)  # gradients of fake tensors on a GPU need one
    images = torch.empty(2, 3, 203, 170, device="meta")
    with mock.patch.object(windowed, "takes_triton", _always), Watch() as watch:
        loss = model(images).mean()
        loss.backward()
    assert watch.counts[OPERATORS[0]] == blocks * (2 if checkpointing else 1)
    assert watch.counts[OPERATORS[1]] == blocks
    assert all(x.grad is not None and x.grad.shape == x.shape for x in model.parameters())


@pytest.mark.usefixtures("usable_gpu")
def test_compiled_training_is_one_graph() -> None:
    torch.compiler.reset()
    model = build(neighbours="random").train()
    on("meta", model)
    with mock.patch.object(windowed, "takes_triton", _always):
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        compiled(torch.empty(2, 3, 96, 80, device="meta")).mean().backward()
    assert all(x.grad is not None for x in model.parameters())
    torch.compiler.reset()


def test_launches_of_a_call() -> None:
    """One forward; backward: queries, keys, and for a table its scores and their sums."""
    launches = pytest.importorskip("vision_longformer.attention.triton.launches")
    tensors = plan_tensors(device="meta")
    count: dict[str, int] = {}
    with mock.patch.object(launches.Launch, "run", lambda self: count.update({self.kernel.__name__: 1})):
        inputs: Any = (*tensors, *SETTINGS)
        call = launches.Call(Inputs(*inputs), precision="ieee")
        out, logsumexp = torch.empty(2, 50, 60, 3, 32), torch.empty(2, 3, 50, 60)
        plans = [*call.forward(out=out, logsumexp=logsumexp)]
        plans += call.backward(call.new_gradients(), grad=out, out=out, logsumexp=logsumexp)
        for launch in plans:
            launch.run()
    assert list(count) == ["attend", "queries_backward", "keys_backward", "scores_backward", "table_backward"]


def plan_tensors(*, device: str) -> list[Tensor]:
    qkv = torch.empty(2, 50, 60, 3, 3, 32, device=device)
    of_global = torch.empty(2, 1, 3, 3, 32, device=device)
    biases = [torch.empty(27**2, 3, device=device), torch.empty(3, 1, device=device)]
    return [qkv[:, :, :, 0], qkv[:, :, :, 1:], of_global[:, :, 1:], *biases]


def test_operator_on_meta() -> None:
    leaves = [x.detach().requires_grad_() for x in plan_tensors(device="meta")]
    out, logsumexp = windowed_attention_triton(*leaves, *SETTINGS)
    assert out.shape == leaves[0].shape
    assert out.is_contiguous()
    assert logsumexp.shape == (2, 3, 50, 60)
    assert not logsumexp.requires_grad
    for x, grad in zip(leaves, torch.autograd.grad(out.sum(), leaves), strict=True):
        assert grad.shape == x.shape
        assert grad.dtype == x.dtype


# --- what of the model waited for a GPU before ----------------------------------------------------------------------


def test_sizes_on_a_gpu_are_not_read() -> None:
    with FakeTensorMode(), Watch():
        sizes = torch.empty(2, 2, dtype=torch.int64, device="cuda")
        padding = find_padding((8, 6), sizes, None, batch=2, device=torch.device("cuda"))
        assert padding.valid is not None
        assert padding.valid.shape == (2, 8, 6)
        whole = Padding().sizes_within((8, 6), device=torch.device("cuda"))
        assert whole.shape == (1, 2)
    assert Padding().sizes_within((8, 6), device=torch.device("cpu")).tolist() == [[8, 6]]
    with pytest.raises(ValueError, match="image_sizes: expected 2 pairs"):
        find_padding((8, 6), torch.empty(3, 2, dtype=torch.int64), None, batch=2, device=torch.device("cpu"))
