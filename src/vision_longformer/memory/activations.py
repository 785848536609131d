"""How much memory a pass will take, known before it runs.

A block holds so many bytes for each token until its map is large enough to go by rows, and a buffer from then on. All
of it follows from the configuration, so that any size takes arithmetic only. Where a token attends to the whole map,
bytes do not grow with the number of tokens alone: the layer then runs on fake tensors, which have shapes and storages
but hold nothing, and what is counted is every storage, from when it is made until the last tensor on it is gone.

Operators that copy inside themselves are not seen through. `WORKSPACE_BYTES` allows for that.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from vision_longformer.attention import build_attention, gathered, rowwise
from vision_longformer.config import GlobalOnly, ModelConfig, StageConfig, Windowed
from vision_longformer.padding import Size, size_at

# Windowed attention gathers keys and values of a band inside its operator, with queries and outputs beside them.
WORKSPACE_BYTES = 2 * gathered.BAND_BYTES
FLOAT_BYTES = 4


def forecast_memory(config: ModelConfig, size: Size, *, batch: int = 1) -> int:
    """Return the bytes that one pass in inference holds at its peak, beside the loaded model and the images.

    Args:
        config: Of the model; it computes in float32 on a CPU.
        size: (height, width) of the images in pixels.
        batch: Images in a pass.

    Raises:
        ValueError: The model refuses images of this size.
    """
    return pass_bytes(config, size, batch=batch) + WORKSPACE_BYTES


def pass_bytes(
    config: ModelConfig,
    size: Size,
    *,
    batch: int = 1,
    stages: Collection[int] | None = None,
    itemsize: int = FLOAT_BYTES,
) -> int:
    """Return the bytes of the tensors that one pass in inference holds at its peak, beside the model and the images.

    Args:
        config: Of the model.
        size: (height, width) of the images in pixels.
        batch: Images in a pass.
        stages: Whose maps are kept, counted from 0; the pass ends with the last of them. None keeps none.
        itemsize: Bytes of a value.

    Raises:
        ValueError: The model refuses images of this size.
    """
    peak = kept = before = 0  # before: the map that comes in; at first the images, which are not counted
    incoming, channels = size, config.in_chans
    last = len(config.stages) - 1 if stages is None else max(stages)
    for number, (stage, stride) in enumerate(zip(config.stages[: last + 1], config.strides, strict=False)):
        grid = size_at(size, stride)
        values = batch * grid[0] * grid[1] * itemsize
        own = values * stage.width
        whole = all(length % stage.patch_size == 0 for length in incoming)
        padded = 0 if whole else values * stage.patch_size**2 * channels
        embedding = 2 * own  # before and after its norm
        if own > rowwise.KEPT_BYTES:
            embedding = own + 2 * rowwise.EMBEDDED_BYTES
        placed = 3 * own if stage.position == "absolute" else 0  # with its position, and the sum
        block = own + _block_bytes(stage, grid, batch, itemsize, config.grid_size(number))
        peak = max(peak, kept + before + max(padded + embedding, placed, block))
        kept += own if number in (stages or ()) else 0
        peak = max(peak, kept + own + (own if number == last else 0))  # the map, and the last one normalised
        incoming, channels, before = grid, stage.width, own
    return peak


def _block_bytes(stage: StageConfig, size: Size, batch: int, itemsize: int, grid: Size) -> int:
    """Return what a block holds beside the map that comes in."""
    tokens = batch * size[0] * size[1]
    own = tokens * stage.width * itemsize
    if stage.is_local and batch and rowwise.is_large(own // batch):
        return own + rowwise.held_bytes(size, stage.width, itemsize, step=stage.step, halo=stage.halo)
    if stage.is_local:
        with_global = (tokens + batch * stage.num_global_tokens) * stage.width * itemsize
        attention = round(_maps_of_attention(stage, batch) * with_global)
    else:
        attention = _attention_bytes(stage, size, batch, grid) * itemsize // FLOAT_BYTES
    # Beside the map as normalised, and then beside what attention adds to it
    return own + max(attention, rowwise.chunk_bytes(tokens, stage.width, itemsize))


def _maps_of_attention(stage: StageConfig, batch: int) -> float:
    """Return what local attention holds, in maps: queries, keys, values, what they give, and this as projected.

    The global tokens then score all keys, perhaps of their own: logits, beside those of the global tokens, as weights.
    Of more than one image, keys or values are copied.
    """
    assert isinstance(stage.attention, Windowed | GlobalOnly)
    scores = stage.num_heads * stage.num_global_tokens / stage.width
    if not scores:
        return 5
    held = 4 if stage.attention.shared_global_projections else 7
    return max(5, held + 3 * scores, held + 1 + 2 * scores if batch > 1 else 0)


@lru_cache(maxsize=64)
def _attention_bytes(stage: StageConfig, size: Size, batch: int, grid: Size) -> int:
    """Return what attention holds in float32 beside what comes in."""
    with _disable_current_modes(), torch.device("meta"):  # what counts a whole model may ask
        layer = build_attention(stage, grid=grid).eval().float()
    with _disable_current_modes(), FakeTensorMode(), torch.no_grad():
        shapes = (batch, *size, stage.width), (batch, stage.num_global_tokens, stage.width)
        tokens = [torch.empty(shape, dtype=torch.float32) for shape in shapes]
        return count_bytes(lambda: layer(*tokens), known=[*make_fake(layer), *tokens])


def make_fake(module: nn.Module) -> list[torch.Tensor]:
    """Give a module fake tensors for its own, within a `FakeTensorMode`, and return them."""
    module._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))
    return [*module.parameters(), *module.buffers()]


def count_bytes(run: Callable[[], object], *, known: Iterable[torch.Tensor]) -> int:
    """Return the bytes of the storages that live at once while something runs, at most, `known` ones aside."""
    with StorageCounter(known=known) as counter:
        run()
        peak: int = counter.peak
    return peak


class StorageCounter(TorchDispatchMode):
    """Counts the bytes of the storages that live at once.

    Attributes:
        live: Bytes now.
        peak: The largest of these.
    """

    def __init__(self, *, known: Iterable[torch.Tensor]) -> None:
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
