"""Teachers of distillation: classifiers whose logits and features another model learns to give.

n views, K classes of the teacher, F channels of its features, C components that are kept of them

What a teacher says of fixed views is computed once and kept in shards, as half-precision numbers:

    logits-00007.npy      (V, n, K): of the V views of each image of shard 7
    features-00007.npy    (V, n, C)
    basis.safetensors     "mean" (F,) and "components" (F, C)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from timm.data import ImageNetInfo
from torch import Tensor, nn

from vision_longformer.datasets.packed import SHARD
from vision_longformer.training.distillation import LogitsAndFeatures
from vision_longformer.training.weight_files import load_weights
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.tensor_files import read_tensors, write_tensors
from vision_longformer.weights import weights_digest

BATCH = {"cpu": 16, "cuda": 256}  # views at once: on CPUs few, whose maps stay in the cache


class Said(NamedTuple):
    """What a teacher says of views."""

    logits: Tensor  # (n, K)
    features: Tensor  # (n, F), or (n, C) once a basis was applied


Runtime = Literal["pytorch", "openvino"]
Runner = Callable[[Tensor], Said]


@dataclass(frozen=True)
class Teacher:
    """A classifier and what it takes.

    Attributes:
        model: In evaluation mode; timm's interface.
        mean: Of its input.
        std: Of its input.
        size: Side in pixels of the views it is shown.
        classes: Names of its classes.
    """

    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    classes: tuple[str, ...]

    def digest(self) -> str:
        """Return the SHA-256 of its weights."""
        return weights_digest(self.model)

    def runner(self, runtime: Runtime, device: torch.device, dtype: torch.dtype | None) -> Runner:
        """Return a function from (n, 3, size, size) views in [0, 1] to logits and features, as float32.

        Args:
            runtime: PyTorch anywhere; or OpenVINO on CPUs, where it is several times as fast.
            device: Where the views are.
            dtype: To compute in, with autocast; None for the model's own.

        Raises:
            ValueError: OpenVINO is not installed, or does not take the model.
        """
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=device)[:, None, None] for values in (self.mean, self.std)
        )
        pair = LogitsAndFeatures(self.model).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        together = BATCH.get(device.type, BATCH["cpu"])
        shape = (together, 3, self.size, self.size)
        compute = _in_openvino(pair, shape, dtype) if runtime == "openvino" else pair

        @torch.no_grad()
        def run(views: Tensor) -> Said:
            parts = []
            for part in ((views - mean) / std).split(together):
                with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                    parts.append(compute(part.contiguous(memory_format=torch.channels_last)))
            return Said(*(torch.cat(kind).float() for kind in zip(*parts, strict=True)))

        return run


def _in_openvino(
    model: nn.Module, shape: tuple[int, int, int, int], dtype: torch.dtype | None
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return a model in OpenVINO, with PyTorch's number of threads, for up to as many images as `shape` has.

    A model for batches of one size takes 0.7 of the time of one for batches of any.
    """
    try:
        import openvino
    except ImportError as error:
        raise ValueError("distillation.runtime='openvino': needs openvino (pip install openvino)") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit, which OpenVINO's reader uses
        converted = openvino.convert_model(model, example_input=torch.zeros(shape, dtype=torch.float32))
    converted.reshape(list(shape))
    precision = {None: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}[dtype]
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(converted, "CPU", settings)

    def compute(images: Tensor) -> tuple[Tensor, Tensor]:
        whole = torch.zeros(shape, dtype=torch.float32)
        whole[: len(images)] = images
        found = compiled(whole.numpy())
        logits, features = (torch.from_numpy(found[place][: len(images)].copy()) for place in range(2))
        return logits, features

    return compute


def load_teacher(teacher: str, *, size: int | None) -> Teacher:
    """Load a teacher.

    Args:
        teacher: A weight file of this library, a folder in timm's hub layout, or the name of a model of timm, whose
            weights timm then finds or downloads.
        size: Side in pixels of the views it is shown; None takes its own.

    Raises:
        ValueError: There is no such teacher, or it is no classifier.
    """
    path = Path(teacher)
    try:
        if path.is_file():
            trained = load_weights(path)
            names = trained.classes
            model: nn.Module = trained.model
            description = dict(trained.preprocessing)
            own_size = int(description.get("size", 224))
        else:
            if not path.is_dir() and teacher.partition(".")[0] not in timm.list_models():
                raise ValueError("neither a file nor a folder, and no model of timm has this name")
            model = timm.create_model(f"local-dir:{path}" if path.is_dir() else teacher, pretrained=True)
            description = dict(cast(Any, model).pretrained_cfg)
            names, own_size = description.get("label_names"), int(description["input_size"][-1])
        classes = int(getattr(model, "num_classes", 0))
    except (OSError, RuntimeError, ValueError, LookupError, AttributeError) as error:
        raise ValueError(f"teacher {teacher!r}: cannot be loaded ({' '.join(str(error).split())})") from error
    if classes < 2 or not hasattr(model, "get_classifier"):
        raise ValueError(f"teacher {teacher!r}: is no classifier")
    return Teacher(
        model.eval().requires_grad_(False),
        tuple(description["mean"]),
        tuple(description["std"]),
        size or own_size,
        tuple(names) if names else _names(classes),
    )


def _names(classes: int) -> tuple[str, ...]:
    """Return the names of a teacher's classes where it has none: of 1,000 they are those of ImageNet."""
    if classes != 1000:
        return tuple(f"class {number}" for number in range(classes))
    info = ImageNetInfo()
    synonyms = [str(info.index_to_description(number)) for number in range(classes)]
    short = [names.partition(",")[0] for names in synonyms]
    return tuple(name if short.count(name) == 1 else names for name, names in zip(short, synonyms, strict=True))


class Basis(NamedTuple):
    """The principal components of a teacher's features, scaled so that their mean variance is 1."""

    mean: Tensor  # (F,)
    components: Tensor  # (F, C)

    @classmethod
    def of(cls, features: Tensor, components: int) -> Basis:
        """Find the largest components of (n, F) features."""
        mean = features.double().mean(0)
        centred = features.double() - mean
        variances, vectors = torch.linalg.eigh(centred.T @ centred / len(features))
        kept = min(components, len(mean), max(1, len(features) - 1))
        vectors = vectors[:, -kept:].flip(1)
        scale = variances[-kept:].mean().clamp(min=1e-12).rsqrt()
        return cls(mean.float(), (vectors * scale).float().contiguous())

    def __call__(self, features: Tensor) -> Tensor:
        """Return (n, C) components of (n, F) features."""
        return (features - self.mean.to(features.device)) @ self.components.to(features.device)


def read_basis(folder: Path) -> Basis | None:
    """Return the basis that `write_basis` wrote; None if there is none."""
    path = folder / "basis.safetensors"
    return Basis(**read_tensors(path)[0]) if path.exists() else None


def write_basis(folder: Path, basis: Basis) -> None:
    """Write a basis."""
    write_tensors(folder / "basis.safetensors", basis._asdict(), {})


def has_said(folder: Path, shard: int) -> bool:
    """Say whether a shard is there."""
    return all((folder / f"{kind}-{shard:05d}.npy").exists() for kind in Said._fields)


def write_said(folder: Path, shard: int, said: Sequence[Said]) -> None:
    """Write a shard: of each view, what was said of all its images."""
    for kind in Said._fields:
        with replacing(folder / f"{kind}-{shard:05d}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, torch.stack([getattr(view, kind) for view in said]).half().cpu().numpy())


class KeptSaid:
    """What a teacher said of every view, mapped into memory."""

    def __init__(self, folder: Path, shards: int) -> None:
        self._kinds = [
            [np.load(folder / f"{kind}-{shard:05d}.npy", mmap_mode="r") for shard in range(shards)]
            for kind in Said._fields
        ]

    def gather(self, images: Sequence[int], views: Sequence[int], device: torch.device) -> Said:
        """Return what was said of a view of each image."""
        return Said(*(_rows(kind, images, views).to(device).float() for kind in self._kinds))


def _rows(shards: Sequence[NDArray[np.float16]], images: Sequence[int], views: Sequence[int]) -> Tensor:
    rows = [shards[image // SHARD][view, image % SHARD] for image, view in zip(images, views, strict=True)]
    return torch.from_numpy(np.stack(rows))
