"""How much memory a dense model takes for an image of any size, known before it runs.

What a backbone of ours holds is known, see `activations`. All else whose size is known runs on fake tensors. What
follows goes by what an image shows; of it, the most that can be is counted, as the model says.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vision_longformer.backbone import VisionLongformer
from vision_longformer.memory.activations import WORKSPACE_BYTES, StorageCounter, make_fake, pass_bytes
from vision_longformer.padding import Size, size_at

MARGIN = 1.15  # measured peaks, of models of every kind, were 0.5 to 1.0 of the forecast with it
# glibc takes blocks below this size from its heap, where holes between them stay with the process; larger ones go back
# at once. Counted with so many of a pass's largest such blocks, forecasts were at most 1% below measured peaks.
LARGEST_HEAP_BLOCK, HEAP_HOLES = 2**25, 1.5


@runtime_checkable
class CountsMemory(Protocol):
    """A model that knows what it holds beyond what can be run on fake tensors."""

    def count_memory(self, images: Tensor, size: Size, live: Callable[[], int]) -> int:
        """Run as far as sizes are known, and return the bytes that are held at most from there on.

        Args:
            images: (1, C, H, W), normalised.
            size: Their (height, width).
            live: Returns the bytes that are held when it is called.
        """


def forecast_dense_memory(model: nn.Module, size: Size) -> int:
    """Return the bytes that finding things in one image holds at its peak, beside the loaded model.

    Args:
        model: A detector or a semantic segmentation model of this library, computing in float32.
        size: (height, width) of the image in pixels.

    Raises:
        ValueError: The model refuses images of this size.
        TypeError: It is another model.
    """
    if not isinstance(model, CountsMemory):
        raise TypeError(f"model: {type(model).__name__} is no detector or semantic segmentation model of this library")
    fake = _without_weights(model)
    for module in fake.modules():
        if isinstance(module, VisionLongformer):
            module.forward_intermediates = partial(_maps, module)  # type: ignore[method-assign]
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        with _Counter(known=make_fake(fake)) as counter:
            pixels = torch.empty(1, _in_chans(model), *size, dtype=torch.float32)
            images = pixels * 1  # normalised
            del pixels
            after = fake.count_memory(images, size, lambda: counter.live)
        peak: int = max(counter.peak, after) + round(HEAP_HOLES * counter.largest_on_heap)
    return round(MARGIN * (peak + WORKSPACE_BYTES))


def _in_chans(model: nn.Module) -> int:
    """Return how many channels the images of a model have: those of its first convolution."""
    return next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)


def _maps(model: VisionLongformer, images: Tensor, *, indices: tuple[int, ...], **_: Any) -> list[Tensor]:
    """Return the maps of some stages; hold what a pass over one image holds, and do not run it."""
    size = (images.shape[2], images.shape[3])
    torch.empty(pass_bytes(model.config, size, stages=indices), dtype=torch.uint8)
    stages, strides = model.config.stages, model.config.strides
    return [images.new_empty(1, stages[stage].width, *size_at(size, strides[stage])) for stage in indices]


class _Counter(StorageCounter):
    """Also counts that convolutions on a CPU reorder what they read and write, in copies of their own.

    Attributes:
        largest_on_heap: Bytes of the largest storage below `LARGEST_HEAP_BLOCK`.
    """

    largest_on_heap = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if func is torch.ops.aten.convolution.default:
            copies = sum(tensor.numel() * tensor.element_size() for tensor in (args[0], result))
            self.peak = max(self.peak, self.live + copies)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        super()._count(storage)
        if storage.nbytes() < LARGEST_HEAP_BLOCK:
            self.largest_on_heap = max(self.largest_on_heap, storage.nbytes())


def _without_weights(model: nn.Module) -> Any:
    """Return a copy of a model whose weights have shapes only."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(model, memo).eval()
