"""How much memory a pass will take, known before it runs.

The very model is run on fake tensors: they have shapes, types and storages but hold nothing, so that a pass of any size
takes neither memory nor arithmetic. What is counted is every storage that a pass would hold, from when it is made until
the last tensor on it is gone.

Operators that copy inside themselves are not seen through. `WORKSPACE_BYTES` allows for that.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vision_longformer.attention import banded
from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import GlobalOnly, ModelConfig, Windowed

# Windowed attention gathers keys and values of a band inside its operator, with queries and outputs beside them.
WORKSPACE_BYTES = 2 * banded.BAND_BYTES
COUNTED_PIXELS = 4 * 10**6  # of a pass over a larger image


def forecast_memory(config: ModelConfig, size: tuple[int, int], *, batch: int = 1) -> int:
    """Return the bytes that one pass in inference holds at its peak, beside the loaded model and the images.

    Args:
        config: Of the model; it computes in float32 on a CPU.
        size: (height, width) of the images in pixels.
        batch: Images in a pass.

    Raises:
        ValueError: The model refuses images of this size.
    """
    with _loaded(config) as (model, known):
        images = torch.empty(batch, config.in_chans, *size)
        with StorageCounter(known=[*known, images]) as counter:
            model(images)
        peak: int = counter.peak
    return peak + WORKSPACE_BYTES


def forecast_encoding(config: ModelConfig, size: tuple[int, int], *, stages: Collection[int], itemsize: int = 4) -> int:
    """Return the bytes that a pass of `Encoder` over a whole image holds at its peak, beside the model and the image.

    All of it grows with the number of pixels, so that a large image is counted at a smaller size.

    Args:
        config: Of the model.
        size: (height, width) of the image in pixels.
        stages: Whose maps are kept, counted from 0.
        itemsize: Bytes of a value.

    Raises:
        ValueError: The model refuses images of this size.
    """
    windowed = all(isinstance(stage.attention, Windowed | GlobalOnly) for stage in config.stages)
    counted = _smaller(size, config.strides[-1]) if windowed else size
    last = len(config.stages) - 1
    with _loaded(config) as (model, known):
        with StorageCounter(known=known) as counter:
            images = torch.empty(1, config.in_chans, *counted)  # normalised
            model.forward_intermediates(images, indices=sorted({*stages, last}), return_prefix_tokens=True)
        peak: int = counter.peak
    pixels = size[0] * size[1] / (counted[0] * counted[1])
    return round(peak * pixels * itemsize / 4) + WORKSPACE_BYTES


def _smaller(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return a size of at most `COUNTED_PIXELS` in the same proportions, in whole tokens of the last stage."""
    scale = math.sqrt(COUNTED_PIXELS / (size[0] * size[1]))
    if scale >= 1:
        return size
    height, width = (max(1, round(side * scale / stride)) * stride for side in size)
    return height, width


@contextmanager
def _loaded(config: ModelConfig) -> Iterator[tuple[VisionLongformer, list[torch.Tensor]]]:
    """Give a model of fake tensors, and these, while new tensors are fake too."""
    with torch.device("meta"):
        model = VisionLongformer(config).eval()
    with FakeTensorMode(), torch.no_grad():
        model._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))
        yield model, [*model.parameters(), *model.buffers()]


class StorageCounter(TorchDispatchMode):
    """Counts the bytes of the storages that live at once.

    Attributes:
        live: Bytes now.
        peak: The largest of these.
    """

    def __init__(self, *, known: list[torch.Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count the storages that it made."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, storage.nbytes()).atexit = False

    def _release(self, size: int) -> None:
        self.live -= size
