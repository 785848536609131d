"""Where a model runs: eager PyTorch, or exported to ONNX for ONNX Runtime or OpenVINO, which people deploy with."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vision_longformer.export.onnx import TOLERANCE, ExportError, trace_onnx

Runtime = Literal["eager", "onnxruntime", "openvino"]
RUNTIMES: tuple[Runtime, ...] = ("eager", "onnxruntime", "openvino")


def require_runtime(name: str) -> None:
    """Raise unless a runtime exists and is installed.

    Raises:
        ValueError: It is not; says how to install it.
    """
    if name not in RUNTIMES:
        raise ValueError(f"there is no runtime {name!r}: choose among {', '.join(RUNTIMES)}")
    if name == "eager":
        return
    missing = [module for module in ("onnx", "onnxscript", name) if importlib.util.find_spec(module) is None]
    if missing:
        raise ValueError(
            f"the runtime {name} needs {' and '.join(missing)}, which cannot be found: install them with "
            "pip install 'vision-longformer[benchmark]'"
        )


def export(model: nn.Module, images: Tensor, target: Path) -> None:
    """Write a model as ONNX for batches of the shape of `images`.

    Raises:
        ExportError: PyTorch cannot export it.
    """
    trace_onnx(model.eval(), images).save(os.fspath(target))


def open_session(runtime: Runtime, path: Path, *, threads: int) -> Callable[[np.ndarray[Any, Any]], Any]:
    """Load an exported model.

    Args:
        runtime: One of `RUNTIMES` but "eager".
        path: What `export` wrote.
        threads: To compute with.

    Returns:
        Takes float32 images (B, 3, H, W) and gives logits (B, classes).
    """
    return _onnxruntime_session(path, threads) if runtime == "onnxruntime" else _openvino_session(path, threads)


def _onnxruntime_session(path: Path, threads: int) -> Callable[[np.ndarray[Any, Any]], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads would slow who comes next
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _openvino_session(path: Path, threads: int) -> Callable[[np.ndarray[Any, Any]], Any]:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # it would choose half precision on processors that have it
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(os.fspath(path), "CPU", settings)
    return lambda images: compiled(images)[0]


def check_output(model: nn.Module, images: Tensor, session: Callable[[np.ndarray[Any, Any]], Any]) -> None:
    """Raise unless an exported model gives what the model itself gives.

    Raises:
        ExportError: The results differ by more than `TOLERANCE`.
    """
    with torch.inference_mode():
        expected = model.eval()(images).numpy()
    error = float(np.abs(session(images.numpy()) - expected).max() / np.abs(expected).max())
    if not error <= TOLERANCE:
        raise ExportError(f"gives another result once exported (largest error {error:.1e} of the largest magnitude)")
