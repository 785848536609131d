"""`vil export`: models as ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vision_longformer.backbone import VisionLongformer
from vision_longformer.benchmarking.benchmark import parse_size, size_name
from vision_longformer.commands.common import Arguments, UsageError, check_output_file
from vision_longformer.commands.terminal import complain, give, warn
from vision_longformer.export.onnx import ExportError, Outputs, export_onnx, metadata_of, require_onnx
from vision_longformer.registry import create_model
from vision_longformer.variants import list_models
from vision_longformer.weights import load

UNTRAINED = "the model has no trained weights, so the file is good for trying out alone: export a weight file instead"


def run(arguments: Arguments) -> int:
    check_output_file("--output", arguments.output)
    try:
        require_onnx()
        size = parse_size(arguments.size)
        model = _chosen_model(arguments)
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    if not Path(arguments.model).exists():
        warn(UNTRAINED)
    outputs: Outputs = "features" if arguments.features else "logits"
    try:
        export_onnx(model, arguments.output, image_size=size, dynamic=not arguments.fixed, outputs=outputs)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except ExportError as error:
        complain(f"{arguments.model}: {error}")
        return 1
    except OSError as error:
        complain(f"{arguments.output}: cannot be written ({(error.strerror or str(error)).lower()})")
        return 1
    taken = f"one image of {size_name(size)} pixels" if arguments.fixed else "images of any number and size"
    metadata = metadata_of(model)
    about = {"file": arguments.output, "fixed": arguments.fixed, "outputs": outputs, **metadata}
    give(arguments, about, f"{arguments.output}: takes {taken}, gives {outputs}.", _about(metadata))
    return 0


def _about(metadata: dict[str, Any]) -> str:
    """Return what the file says of its images and classes, as text."""
    mean, std = (", ".join(f"{value:g}" for value in metadata[name]) for name in ("mean", "std"))
    names = metadata.get("class_names")
    listed = "; no class names" if names is None else f"; {len(names)} class names, {', '.join(map(str, names[:3]))}"
    more = ", …" if names is not None and len(names) > 3 else ""
    return f"In its metadata: mean {mean} and deviation {std} of pixels from 0 to 1{listed}{more}."


def _chosen_model(arguments: Arguments) -> VisionLongformer:
    if Path(arguments.model).exists():
        return load(arguments.model)
    if arguments.model not in list_models():
        raise ValueError(f"{arguments.model}: is neither a file nor a model; `vil models` lists the models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        model = create_model(arguments.model)
    assert isinstance(model, VisionLongformer)
    return model
