"""Models as ONNX files, which ONNX Runtime, OpenVINO and others run without PyTorch.

The windowed attention operator, which ONNX does not have, is written as plain tensor operations
(`attention/unfolded.py`).

B batch, H×W image, C channels
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from vision_longformer.attention.unfolded import unfolded_windowed_attention
from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import ModelConfig, Windowed
from vision_longformer.timm_interface import normalisation
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.errors import reason

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

Outputs = Literal["logits", "features"]
TOLERANCE = 1e-4  # largest error of an exported model, over the largest magnitude of what eager PyTorch gives
MAX_BYTES = 2 * 10**9  # a protocol buffer ends at 2³¹


class ExportError(Exception):
    """A model cannot be exported, or gives another result once it is; the message says which."""


def export_onnx(
    model: VisionLongformer,
    path: str | Path,
    *,
    image_size: tuple[int, int] = (224, 224),
    batch_size: int = 1,
    dynamic: bool = True,
    outputs: Outputs = "logits",
) -> None:
    """Write a model as one ONNX file that takes "images", float32 (B, in_chans, H, W), normalised.

    The file's metadata hold what is needed to use it without this library, as JSON: see `metadata_of`.

    If ONNX Runtime is installed, the written model is run on random images and compared with `model`, which stays as it
    is.

    Args:
        model: In float32. It is exported in evaluation mode.
        path: The file, which is replaced once all is well.
        image_size: (height, width) of the images, or with `dynamic` those of the comparison.
        batch_size: How many, likewise.
        dynamic: The file takes any number of images of any one size. Tracing that takes some minutes. Not for cyclic
            windows, which wrap or not depending on the size.
        outputs: "logits" gives what `model(images)` does, under this name; "features" gives the map of each stage,
            (B, C, ⌈H/stride⌉, ⌈W/stride⌉), as "stage1", "stage2" and so on.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        ValueError: An argument does not fit.
        OSError: The file cannot be written, which is found out before the work.
        ExportError: PyTorch cannot export the model, or the file gives another result than the model.
    """
    require_onnx()
    _check(model, image_size, batch_size, dynamic, outputs)
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target}: is a folder, not a file")
    module = _Exported(copy.deepcopy(model).cpu(), outputs).eval()
    images = torch.randn(
        batch_size, model.in_chans, *image_size, dtype=torch.float32, generator=torch.Generator().manual_seed(0)
    )
    traced = torch.zeros(2, model.in_chans, *_traced_size(model.config), dtype=torch.float32) if dynamic else images
    names = ["logits"] if outputs == "logits" else [f"stage{n}" for n in range(1, len(model.config.stages) + 1)]
    with replacing(target) as temporary:  # what cannot be written fails here, before the work
        program = trace_onnx(module, traced, dynamic=dynamic, output_names=names)
        program.model.metadata_props.update({name: json.dumps(value) for name, value in metadata_of(model).items()})
        program.save(os.fspath(temporary))
        if importlib.util.find_spec("onnxruntime") is not None:
            _compare(module, images, temporary)


def metadata_of(model: VisionLongformer) -> dict[str, Any]:
    """Return what people need to know of a model beside its file.

    Returns:
        "mean" and "std" of each channel, for pixels in [0, 1]; and "class_names", one for each logit, where the model
        has any.
    """
    mean, std = normalisation(model)
    names = getattr(model, "pretrained_cfg", {}).get("label_names")
    known = {"class_names": list(names)} if names is not None and len(names) == model.num_classes else {}
    return {"mean": list(mean), "std": list(std), **known}


def require_onnx() -> None:
    """Raise unless what exporting needs is installed.

    Raises:
        ImportError: It is not; says how to install it.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"export needs {' and '.join(missing)}, which cannot be found: install what is missing with "
            "pip install 'vision-longformer[onnx]'"
        )


def trace_onnx(
    model: nn.Module, images: Tensor, *, dynamic: bool = False, output_names: Sequence[str] | None = None
) -> ONNXProgram:
    """Return any model of (B, C, H, W) images as an ONNX program.

    Args:
        model: In evaluation mode.
        images: Of the shape that the program takes.
        dynamic: Leave B, H and W free. None of them, nor any of the model's maps, may have length 1 in `images`.
        output_names: One for each result; None leaves the exporter's.

    Raises:
        ExportError: PyTorch cannot export it.
    """
    free = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},) if dynamic else None
    names = {"images": {0: "batch", 2: "height", 3: "width"}} if dynamic else None
    operator = torch.ops.vision_longformer.windowed_attention.default
    try:
        with _silence(), torch.no_grad():
            program = torch.export.export(model, (images,), dynamic_shapes=free)
            if any(node.target is operator for node in program.graph.nodes):
                program = program.run_decompositions({operator: unfolded_windowed_attention})
            exported = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=output_names,
                dynamic_shapes=names,
            )
    except Exception as error:  # the exporter raises errors of many kinds
        raise ExportError(f"cannot be exported to ONNX ({reason(_origin(error))})") from error
    assert exported is not None
    return exported


class _Exported(nn.Module):
    """A model as a function of its images alone."""

    def __init__(self, model: VisionLongformer, outputs: Outputs) -> None:
        super().__init__()
        self.model, self.outputs = model, outputs

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.outputs == "logits":
            return (self.model(images),)
        return tuple(self.model.forward_intermediates(images, intermediates_only=True))


def _check(
    model: VisionLongformer, image_size: tuple[int, int], batch_size: int, dynamic: bool, outputs: Outputs
) -> None:
    if outputs not in get_args(Outputs):
        raise ValueError(f"outputs={outputs!r}: must be one of {', '.join(get_args(Outputs))}")
    if min(image_size) < 1:
        raise ValueError(f"image_size={image_size}: height and width must be at least 1 pixel")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    kinds = {parameter.dtype for parameter in model.parameters()}
    if kinds != {torch.float32}:
        raise ValueError(f"model: has parameters in {', '.join(map(str, kinds))}: call model.float() first")
    if 4 * sum(parameter.numel() for parameter in model.parameters()) > MAX_BYTES:
        raise ValueError("model: its parameters take more than the 2 GB that one ONNX file can hold")
    if dynamic and any(_is_cyclic(stage.attention) for stage in model.config.stages):
        raise ValueError("dynamic=True: cyclic windows can only be exported for one size: pass dynamic=False")


def _is_cyclic(attention: object) -> bool:
    return isinstance(attention, Windowed) and attention.shape == "cyclic"


def _traced_size(config: ModelConfig) -> tuple[int, int]:
    """Return an odd (height, width) that gives every stage more than one chunk on each axis, the last one partial.

    Tracing takes a length of 1 for a constant.
    """
    windows = [stage.attention.window_size if isinstance(stage.attention, Windowed) else 1 for stage in config.stages]
    chunk = max(window * stride for window, stride in zip(windows, config.strides, strict=True))
    return 2 * chunk + 1, 3 * chunk + 1


def _compare(module: nn.Module, images: Tensor, path: Path) -> None:
    """Raise unless a file gives what the module gives."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = [result.numpy() for result in module(images)]
    actual = cast(
        "list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]", session.run(None, {"images": images.numpy()})
    )
    for one, other in zip(actual, expected, strict=True):
        error = float(np.abs(one - other).max() / max(np.abs(other).max(), np.finfo(np.float32).tiny))
        if not error <= TOLERANCE:
            raise ExportError(
                f"gives another result once exported (largest error {error:.1e} of the largest magnitude)"
            )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's notes off the terminal: what goes wrong is raised."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _origin(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
