"""All that is to be measured on a GPU, in one command of at most seven minutes.

Parts run in the order of their worth, each in a process of its own with a limit, and print JSON lines as soon as they
know something, so that a part that fails or takes too long loses nothing but itself. Where the package is not
installed, `PYTHONPATH=src` is enough, with PyTorch 2.11 and Triton 3.6 or later and timm. One file, though a long one,
as it is carried to machines that have little else.

python benchmarks/gpu.py [--output gpu.jsonl] [--parts environment kernel ...] [--seconds 420] [--dry]

`--dry` runs on the CPU at sizes that show nothing, to see that the script works.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

DRY = "VISION_LONGFORMER_DRY" in os.environ  # set for the parts by --dry
DEVICE = torch.device("cpu" if DRY else "cuda")
PEERS = {"Swin-T": "swin_tiny_patch4_window7_224", "ConvNeXt-T": "convnext_tiny"}
OURS = {"small": "vision_longformer_small", "tiny": "vision_longformer_tiny"}
# (map side, heads, head width) of the stages of `small` at 896²
STAGES = ((224, 3, 32), (112, 3, 64), (56, 6, 64), (28, 12, 64))
WINDOW = 7


def emit(**record: Any) -> None:
    print(json.dumps(record), flush=True)


def milliseconds(run: Callable[[], Any], *, repeats: int = 20) -> float:
    """Return the median time of a run, after two that warm up; each run is timed on the device."""
    for _ in range(2):
        run()
    if DRY:
        begin = time.perf_counter()
        run()
        return 1000 * (time.perf_counter() - begin)
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        times.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(float(start.elapsed_time(end)) for start, end in times)


def peak_mebibytes(run: Callable[[], Any]) -> float | None:
    """Return the most memory that a run takes, what is there before included."""
    if DRY:
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return round(torch.cuda.max_memory_allocated() / 2**20, 1)


@contextlib.contextmanager
def reported(**record: Any) -> Iterator[dict[str, Any]]:
    """Emit a record with what the block adds to it, or with the error that ended it."""
    try:
        yield record
    except Exception as error:  # the next may still succeed
        record["error"] = f"{type(error).__name__}: {str(error)[-500:]}"
    emit(**record)


# --- parts ----------------------------------------------------------------------------------------------------------


def environment() -> None:
    versions = {"python": sys.version.split()[0]}
    for name in ("torch", "triton", "timm"):
        with contextlib.suppress(ImportError):
            versions[name] = importlib.import_module(name).__version__
    emit(part="environment", versions=versions, cuda=torch.version.cuda)
    if not DRY:
        card = torch.cuda.get_device_properties(0)
        emit(
            part="environment",
            card=card.name,
            capability=[card.major, card.minor],
            processors=card.multi_processor_count,
            gibibytes=round(card.total_memory / 2**30, 1),
        )
    side = 256 if DRY else 8192
    for dtype, precision in ((torch.bfloat16, "highest"), (torch.float32, "high"), (torch.float32, "highest")):
        with reported(part="environment", product=str(dtype), precision=precision, side=side) as record:
            torch.set_float32_matmul_precision(precision)
            a, b = (torch.randn(side, side, device=DEVICE, dtype=dtype) for _ in range(2))
            record["tflops"] = round(2 * side**3 / milliseconds(functools.partial(torch.mm, a, b)) / 1e9, 1)
    with reported(part="environment", copied_bytes=2**22 if DRY else 2**31) as record:
        a = torch.empty(record["copied_bytes"], dtype=torch.uint8, device=DEVICE)
        record["terabytes_per_second"] = round(2 * a.numel() / milliseconds(a.clone) / 1e9, 2)


def layer_inputs(
    side: tuple[int, int], *, batch: int, heads: int, head_width: int, num_global: int, window: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return leaves where linear layers leave them: queries, keys and values of one tensor."""
    height, width = side
    given: dict[str, Any] = {"device": DEVICE, "dtype": dtype}
    qkv = torch.randn(batch, height, width, 3, heads, head_width, **given)
    of_global = torch.randn(batch, num_global, 3, heads, head_width, **given)
    tensors = {"query": qkv[:, :, :, 0], "key_value": qkv[:, :, :, 1:], "global_key_value": of_global[:, :, 1:]}
    tensors["table"] = torch.randn((4 * window - 1) ** 2, heads, device=DEVICE) / 2
    tensors["global_bias"] = torch.randn(heads, num_global, device=DEVICE) / 2
    return {name: x.detach().requires_grad_() for name, x in tensors.items()}


def by_kernel(tensors: dict[str, Tensor], *, window: int, shape: str, valid: Tensor | None, sizes: Any) -> Tensor:
    from vision_longformer.attention.triton import windowed_attention_triton

    cyclic = shape == "cyclic"
    settings = (valid, sizes if cyclic else None, None, window, True, shape == "exact", cyclic, 0, 0)
    return cast(Tensor, windowed_attention_triton(*tensors.values(), *settings)[0])


def by_oracle(tensors: dict[str, Tensor], **settings: Any) -> Tensor:
    from vision_longformer.attention.dense import dense_windowed_attention
    from vision_longformer.attention.geometry import ALL

    attend: Callable[..., Tensor] = dense_windowed_attention
    return attend(**tensors, **settings, offsets=ALL)


def correctness() -> None:
    """Kernels, and plain operations of the same type, against the oracle in float64; memory is full of NaN before."""
    torch.use_deterministic_algorithms(True, warn_only=True)  # which fills new memory with NaN
    cases = (
        {"side": (23, 31), "heads": 3, "head_width": 32, "window": 7, "num_global": 1, "shape": "chunk"},
        {"side": (30, 17), "heads": 2, "head_width": 48, "window": 4, "num_global": 3, "shape": "exact"},
        {"side": (33, 29), "heads": 2, "head_width": 64, "window": 5, "num_global": 0, "shape": "cyclic"},
        {"side": (31, 40), "heads": 1, "head_width": 128, "window": 15, "num_global": 1, "shape": "chunk"},
    )
    kinds = ((torch.bfloat16, "highest"), (torch.float16, "highest"), (torch.float32, "high"))
    kernel = by_oracle if DRY else by_kernel
    for (dtype, precision), case in ((kind, case) for kind in (*kinds, (torch.float32, "highest")) for case in cases):
        with reported(part="correctness", dtype=str(dtype), precision=precision, case=case) as record:
            torch.set_float32_matmul_precision(precision)
            torch.manual_seed(0)
            arguments = dict(case)
            shape, window = arguments.pop("shape"), cast(int, case["window"])
            tensors = layer_inputs(**arguments, batch=2, dtype=dtype)  # type: ignore[arg-type]
            narrow = {name: x.detach().to(dtype).requires_grad_() for name, x in tensors.items()}
            tensors = narrow if DRY else tensors
            height, width = cast(tuple[int, int], case["side"])
            sizes = torch.tensor([[height, width], [height - 5, width - 9]], device=DEVICE)
            rows, columns = (torch.arange(length, device=DEVICE) for length in (height, width))
            valid = (rows[:, None] < sizes[:, 0, None, None]) & (columns < sizes[:, 1, None, None])
            settings = {"window": window, "shape": shape, "valid": valid, "sizes": sizes}
            wide = {name: x.detach().double().requires_grad_() for name, x in tensors.items()}
            cotangent = torch.randn(tensors["query"].shape, device=DEVICE).to(dtype)
            expected = differentiate(by_oracle, wide, cotangent.double(), settings)
            actual = differentiate(kernel, tensors, cotangent, settings)
            again = differentiate(kernel, tensors, cotangent, settings)
            plain = differentiate(by_oracle, narrow, cotangent, settings)
            record["bit_equal"] = all(torch.equal(actual[name], again[name]) for name in actual)
            record["errors"] = {name: relative_error(actual[name], expected[name]) for name in expected}
            record["errors_of_plain_operations"] = {
                name: relative_error(plain[name], expected[name]) for name in expected
            }


def differentiate(
    attend: Callable[..., Tensor], tensors: dict[str, Tensor], cotangent: Tensor, settings: dict[str, Any]
) -> dict[str, Tensor]:
    out = attend(tensors, **settings)
    names = [name for name, x in tensors.items() if x.numel()]
    return {
        "out": out.detach(),
        **dict(zip(names, torch.autograd.grad(out, [tensors[n] for n in names], cotangent), strict=True)),
    }


def relative_error(actual: Tensor, expected: Tensor) -> float:
    error, magnitude = (actual.double() - expected).abs().max(), expected.abs().max()
    return float(f"{(error / magnitude).item():.2e}")


def kernel() -> None:
    """Time of attention alone at the stages of `small` at 896², by the kernels and by SDPA, forward and backward."""
    from vision_longformer.attention.gathered import gathered_windowed_attention
    from vision_longformer.attention.geometry import ALL

    def by_sdpa(tensors: dict[str, Tensor], **settings: Any) -> Tensor:
        attend: Callable[..., Tensor] = gathered_windowed_attention
        return attend(**tensors, **settings, offsets=ALL)

    settings: dict[str, Any] = {"window": WINDOW, "shape": "chunk", "valid": None, "sizes": None}
    ways = {"sdpa": by_sdpa} if DRY else {"triton": by_kernel, "sdpa": by_sdpa}
    for batch in (1, 8):
        for stage, (full_side, heads, head_width) in enumerate(STAGES, start=1):
            side = full_side // 8 if DRY else full_side
            torch.manual_seed(0)
            tensors = layer_inputs(
                (side, side),
                batch=batch,
                heads=heads,
                head_width=head_width,
                num_global=1,
                window=WINDOW,
                dtype=torch.bfloat16,
            )
            keys = sum((min(side, (c + 2) * WINDOW) - max(0, (c - 1) * WINDOW)) * min(WINDOW, side - c * WINDOW)
                       for c in range(-(-side // WINDOW)))  # fmt: skip
            flops = 4 * batch * heads * head_width * keys**2  # two products of two operations
            for name, attend in ways.items():
                with reported(part="kernel", way=name, stage=stage, batch=batch) as record:
                    with torch.no_grad():
                        forward = milliseconds(functools.partial(attend, tensors, **settings))
                    record |= {"forward_ms": round(forward, 4), "forward_tflops": round(flops / forward / 1e9, 2)}
                    out = attend(tensors, **settings)
                    run = functools.partial(
                        torch.autograd.grad, out, list(tensors.values()), torch.ones_like(out), retain_graph=True
                    )
                    backward = milliseconds(run)
                    record |= {"backward_ms": round(backward, 4)}
                    record["backward_tflops"] = round(2.5 * flops / backward / 1e9, 2)


def build(name: str, size: int) -> nn.Module:
    import timm

    import vision_longformer  # noqa: F401  which registers its models

    options = {"img_size": size} if "swin" in name else {}
    model = cast(nn.Module, timm.create_model(name, **options))
    return model.to(DEVICE).to(memory_format=torch.channels_last)


def images_of(batch: int, size: int) -> Tensor:
    return torch.randn(batch, 3, size, size, device=DEVICE).to(memory_format=torch.channels_last)


def models() -> None:
    """Whole models in bfloat16, inference."""
    sizes = ((32, 1),) if DRY else ((896, 4), (1792, 1), (224, 64))
    for compiled in (False, True):
        for size, batch in sizes:
            for name, timm_name in (OURS | PEERS).items():
                if compiled and name == "tiny":
                    continue
                with reported(part="models", model=name, size=size, batch=batch, compiled=compiled) as record:
                    model, images = build(timm_name, size).eval().bfloat16(), images_of(batch, size).bfloat16()
                    run: Any = torch.compile(model, backend="eager" if DRY else "inductor") if compiled else model
                    with torch.inference_mode():
                        elapsed = milliseconds(functools.partial(run, images), repeats=10)
                        record["images_per_second"] = round(1000 * batch / elapsed, 1)
                        record["peak_mib"] = peak_mebibytes(functools.partial(run, images))


def training() -> None:
    """A training step under autocast to bfloat16, with fused AdamW."""
    sizes = ((32, 2),) if DRY else ((1024, 4), (224, 64))
    for compiled in (False, True):
        for size, batch in sizes:
            for name, timm_name in {"small": OURS["small"], "Swin-T": PEERS["Swin-T"]}.items():
                with reported(part="training", model=name, size=size, batch=batch, compiled=compiled) as record:
                    model, images = build(timm_name, size).train(), images_of(batch, size)
                    step = training_step(model, images, compiled=compiled)
                    elapsed = milliseconds(step, repeats=10)
                    record["images_per_second"] = round(1000 * batch / elapsed, 1)
                    record["peak_mib"] = peak_mebibytes(step)


def training_step(model: nn.Module, images: Tensor, *, compiled: bool = False) -> Callable[[], None]:
    labels = torch.zeros(len(images), dtype=torch.long, device=DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True, capturable=not DRY)
    run: Any = torch.compile(model, backend="eager" if DRY else "inductor") if compiled else model

    def step() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16):
            loss = nn.functional.cross_entropy(run(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    return step


def graphs() -> None:
    """Forward passes and training steps recorded once and replayed, against the same ones launched anew."""
    for training_too in (False, True):
        with reported(part="graphs", training=training_too) as record:
            size, batch = (32, 2) if DRY else (224, 8)
            model, images = build(OURS["small"], size), images_of(batch, size)
            if training_too:
                run: Callable[[], Any] = training_step(model.train(), images)
            else:
                model, images = model.eval().bfloat16(), images.bfloat16()
                run = torch.no_grad()(functools.partial(model, images))
            record["eager_ms"] = round(milliseconds(run, repeats=10), 3)
            if DRY:
                continue
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    run()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = run()
            record["replayed_ms"] = round(milliseconds(graph.replay, repeats=10), 3)
            if not training_too:
                record["equal"] = torch.equal(cast(Tensor, result), cast(Tensor, run()))


def edge() -> None:
    """One small call with everything in it, forward and backward; what `sanitizer` runs."""
    tensors = layer_inputs((11, 17), batch=2, heads=2, head_width=24, num_global=3, window=4, dtype=torch.float16)
    valid = torch.rand(2, 11, 17, device=DEVICE) < 0.8
    settings = {"window": 4, "shape": "chunk", "valid": valid, "sizes": None}
    results = differentiate(by_oracle if DRY else by_kernel, tensors, torch.ones_like(tensors["query"]), settings)
    emit(part="edge", finite=all(bool(x.isfinite().all()) for x in results.values()))


def sanitizer() -> None:
    """Reads and writes out of bounds, as NVIDIA's compute-sanitizer sees them."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        emit(part="sanitizer", error="no compute-sanitizer on this machine")
        return
    command = [tool, "--error-exitcode", "3", sys.executable, __file__, "--part", "edge"]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    emit(part="sanitizer", exit_code=run.returncode, last_lines=run.stdout.splitlines()[-4:])


PARTS: dict[str, tuple[Callable[[], None], int]] = {  # and the seconds it may take
    "environment": (environment, 40),
    "correctness": (correctness, 100),
    "kernel": (kernel, 80),
    "models": (models, 150),
    "training": (training, 120),
    "graphs": (graphs, 50),
    "sanitizer": (sanitizer, 60),
}


# --- all of them ----------------------------------------------------------------------------------------------------


def run_part(name: str, limit: float, output: Any) -> None:
    """Run a part, and pass on its lines as they come."""
    start = time.monotonic()
    with subprocess.Popen(
        ["timeout", "--kill-after=5", str(max(1, round(limit))), sys.executable, __file__, "--part", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if name in PARTS else None,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            write(line.rstrip("\n"), output)
        errors = process.stderr.read() if process.stderr else ""
    end: dict[str, Any] = {"part": name, "seconds": round(time.monotonic() - start, 1), "exit_code": process.returncode}
    if process.returncode:
        end["error"] = "took too long" if process.returncode in (124, 137) else errors[-1500:]
    write(json.dumps(end), output)


def write(line: str, output: Any) -> None:
    print(line, flush=True)
    if output is not None:
        output.write(line + "\n")
        output.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=420, help="for all parts together")
    parser.add_argument("--output", type=Path, help="a file for the lines too")
    parser.add_argument("--dry", action="store_true", help="on the CPU, to see that the script works")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part is not None:
        (edge if arguments.part == "edge" else PARTS[arguments.part][0])()
        return
    if arguments.dry:
        os.environ["VISION_LONGFORMER_DRY"] = "1"
    deadline = time.monotonic() + arguments.seconds
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(arguments.output.open("w")) if arguments.output else None
        for name in arguments.parts:
            limit = min(PARTS[name][1], deadline - time.monotonic())
            if limit < 10:
                write(json.dumps({"part": name, "error": "no time was left"}), output)
                continue
            run_part(name, limit, output)


if __name__ == "__main__":
    main()
