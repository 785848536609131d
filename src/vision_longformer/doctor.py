"""What this machine and this installation can do, and what to do about what they cannot."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from vision_longformer import pretrained
from vision_longformer.attention import triton
from vision_longformer.attention.fused import build, compiler
from vision_longformer.benchmarking.machine import describe_machine
from vision_longformer.utils.system_memory import free_memory, gigabytes
from vision_longformer.utils.version import __version__

# What packages of an extra add, and whether an ordinary installation works well without.
_EXTRAS = (
    ("tiff", ("imagecodecs",), "TIFFs compressed other than by deflate: LZW, JPEG, JPEG 2000, Zstandard"),
    ("geo", ("rasterio",), "georeferenced rasters and internal masks; writing GeoTIFF"),
    ("zarr", ("zarr",), "Zarr and OME-Zarr, read and written"),
    ("slides", ("openslide",), "slides: .svs, .ndpi, .mrxs, .scn and others"),
    ("detection", ("faster_coco_eval",), "evaluation of detectors"),
    ("train", ("tensorboard",), "curves of training for TensorBoard"),
    ("onnx", ("onnx", "onnxscript", "onnxruntime"), "export to ONNX"),
)
_LITTLE_DISK = 5 * 10**9  # bytes; maps of a large image take gigabytes
_CAPABILITY = (8, 0)  # of the GPUs that the Triton kernels are made for


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: What was looked at.
        state: What was found.
        mend: What to do about it; None where all is well.
        optional: It can be done without: what is missing is not needed by everybody.
    """

    topic: str
    state: str
    mend: str | None = None
    optional: bool = False

    @property
    def troubled(self) -> bool:
        """Whether something should be done about it."""
        return self.mend is not None and not self.optional


def examine(folder: Path = Path()) -> list[Finding]:
    """Look at everything. Nothing is changed, but the kernel of windowed attention is compiled if it was not yet.

    Args:
        folder: Where results are to go: its disk is looked at.
    """
    return [
        _versions(),
        _processor(),
        _memory(),
        _attention(),
        _gpu(),
        _weights(),
        *_formats(),
        _disk(folder),
    ]


def _versions() -> Finding:
    names = ("torch", "torchvision", "timm")
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return Finding("versions", f"vision-longformer {__version__}, Python {platform.python_version()}, {found}")


def _processor() -> Finding:
    machine = describe_machine()
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    state = f"{machine['processor']}, {machine['capability']}, {allowed} processors, {machine['threads']} threads used"
    if machine["threads"] > allowed:
        return Finding("processor", state, f"set OMP_NUM_THREADS={allowed}: more threads than processors are slow")
    return Finding("processor", state)


def _memory() -> Finding:
    free = free_memory(torch.device("cpu"))
    mend = "close other programs, or give --memory and let images be streamed" if free < 10**9 else None
    return Finding("memory", f"{gigabytes(free)} free, limits of a container counted", mend)


def _attention() -> Finding:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        kernel = build.kernel()
    if kernel is not None:
        return Finding("attention on the CPU", f"the compiled kernel, {_origin()}")
    reason = str(told[0].message).rpartition("slower: ")[2] if told else "it could not be compiled before"
    mend = "install a C++ compiler (such as the package g++), or set CXX to one" if "compiler" in reason else reason
    return Finding("attention on the CPU", f"PyTorch's operators, which are slower: {reason}", mend)


def _origin() -> str:
    """Say where the kernel comes from, and why not from the package."""
    try:
        build.load_prebuilt()
        return "prebuilt: it came with the package"
    except compiler.BuildError as error:
        return f"compiled on this machine: {error}"


def _gpu() -> Finding:
    if not torch.cuda.is_available():
        built = torch.version.cuda is not None
        reason = "no GPU is found" if built else "PyTorch is built without CUDA"
        return Finding("GPU", f"none: {reason}", "install PyTorch for CUDA and NVIDIA's driver", optional=True)
    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    state = f"{name}, {gigabytes(free_memory(torch.device('cuda')))} free, capability {capability[0]}.{capability[1]}"
    if capability < _CAPABILITY:
        return Finding("GPU", f"{state}: attention by PyTorch's operators, the kernels are for 8.0 or more")
    if not triton.is_installed():
        return Finding("GPU", f"{state}: attention by PyTorch's operators", "install triton: pip install triton")
    return Finding("GPU", f"{state}: attention by the Triton kernels")


def _weights() -> Finding:
    names = list(pretrained.shipped())
    damaged = []
    for name, entry in pretrained.shipped().items():
        try:
            entry.checked_path()
        except pretrained.DamagedWeightsError:
            damaged.append(name)
    if damaged:
        return Finding("weights", f"damaged: {', '.join(damaged)}", "install the package again")
    return Finding("weights", ", ".join(names) or "none come with this version: models start from random weights")


def _formats() -> Iterator[Finding]:
    yield Finding("reads", "JPEG, PNG, WebP, TIFF, BigTIFF, NumPy arrays and what else Pillow reads")
    for extra, modules, purpose in _EXTRAS:
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            install = f"pip install 'vision-longformer[{extra}]'"
            yield Finding(extra, f"not installed; for {purpose}", install, optional=True)
        else:
            yield Finding(extra, purpose)


def _disk(folder: Path) -> Finding:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    mend = None
    if not os.access(place, os.W_OK):
        mend = f"choose another folder with --output: {place} cannot be written"
    elif free < _LITTLE_DISK:
        mend = "free some space: features of large images take gigabytes (`vil plan` says how many)"
    return Finding("disk", f"{gigabytes(free)} free in {place}", mend)
