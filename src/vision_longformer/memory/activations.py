"""How much memory a pass will take, known before it runs.

The very model is run on fake tensors: they have shapes, types and storages but hold nothing, so that a pass of any size
takes neither memory nor arithmetic. What is counted is every storage that a pass would hold, from when it is made until
the last tensor on it is gone.

Operators that copy inside themselves are not seen through. `WORKSPACE_BYTES` allows for that.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vision_longformer.attention import gathered, rowwise
from vision_longformer.backbone import Block, PatchEmbed, VisionLongformer
from vision_longformer.config import ModelConfig
from vision_longformer.padding import Padding

# Windowed attention gathers keys and values of a band inside its operator, with queries and outputs beside them.
WORKSPACE_BYTES = 2 * gathered.BAND_BYTES


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


@lru_cache(maxsize=64)
def forecast_encoding(config: ModelConfig, size: tuple[int, int], *, stages: tuple[int, ...], itemsize: int = 4) -> int:
    """Return the bytes that a pass of `Encoder` over a whole image holds at its peak, beside the model and the image.

    Args:
        config: Of the model.
        size: (height, width) of the image in pixels.
        stages: Whose maps are kept, counted from 0.
        itemsize: Bytes of a value.

    Raises:
        ValueError: The model refuses images of this size.
    """
    indices = sorted({*stages, len(config.stages) - 1})
    dtype = {2: torch.bfloat16, 4: torch.float32, 8: torch.float64}[itemsize]
    with _loaded(config, dtype) as (model, known), StorageCounter(known=known) as counter:
        images = torch.empty(1, config.in_chans, *size, dtype=dtype)  # normalised
        model.forward_intermediates(images, indices=indices, return_prefix_tokens=True)
        del images
    peak: int = counter.peak
    return peak + WORKSPACE_BYTES


@contextmanager
def _loaded(
    config: ModelConfig, dtype: torch.dtype = torch.float32
) -> Iterator[tuple[VisionLongformer, list[torch.Tensor]]]:
    """Give a model of fake tensors, and these, while new tensors are fake too."""
    with torch.device("meta"):
        model = VisionLongformer(config).eval().to(dtype)
    skip_rowwise(model)
    with FakeTensorMode(), torch.no_grad():
        model._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))
        yield model, [*model.parameters(), *model.buffers()]


def skip_rowwise(model: nn.Module) -> None:
    """Make a model hold what row-wise execution holds, and not run it: it has thousands of steps, all alike."""
    for module in model.modules():
        if isinstance(module, Block):
            module.forward = partial(_transform, module, module.forward)  # type: ignore[method-assign]
        elif isinstance(module, PatchEmbed):
            module._embed = partial(_embed, module, module._embed)  # type: ignore[method-assign]


def _transform(block: Block, forward: Callable[..., Any], x: Tensor, global_tokens: Tensor, padding: Padding) -> Any:
    if not rowwise.pays(block, block.attn, x):
        return forward(x, global_tokens, padding)
    out = torch.empty_like(x)
    torch.empty(rowwise.held_bytes(cast(rowwise.RowwiseLayer, block.attn), x), dtype=torch.uint8)
    return out, global_tokens


def _embed(embed: PatchEmbed, forward: Callable[..., Any], x: Tensor) -> Any:
    if not rowwise.pays_to_embed(embed.proj, embed.norm, x):
        return forward(x)
    out = x.new_empty(rowwise.embedded_shape(embed.proj, x))
    torch.empty(2 * rowwise.EMBEDDED_BYTES, dtype=torch.uint8)  # before and after its norm
    return out


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
