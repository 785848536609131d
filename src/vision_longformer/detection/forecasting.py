"""How much memory a dense model takes for an image of any size, known before it runs.

Everything up to the boxes runs on fake tensors, as in `vision_longformer.forecasting`. What follows goes by what an
image shows; of it, the most that can be is counted.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vision_longformer.detection.mask_rcnn import MaskRCNN
from vision_longformer.detection.retinanet import RetinaNet
from vision_longformer.forecasting import WORKSPACE_BYTES, StorageCounter, skip_rowwise
from vision_longformer.padding import Size
from vision_longformer.segmentation.semantic import SemanticFPN

MARGIN = 1.15  # measured peaks, of models of every kind, were 0.5 to 1.0 of the forecast with it
FLOAT = 4  # bytes
# glibc takes blocks below this size from its heap, where holes between them stay with the process; larger ones go back
# at once. Counted with so many of a pass's largest such blocks, forecasts were at most 1% below measured peaks.
LARGEST_HEAP_BLOCK, HEAP_HOLES = 2**25, 1.5
# Of each score of a level: itself and whether it passes the threshold; of those that pass, also a copy, its place, and
# both again while they are sorted.
SCORE_BYTES, PASSING_BYTES = 4 + 1, 4 + 8 + 16
# Of a trained detector's scores, which are those of every class at every anchor, far fewer pass; all do if nothing is
# asked of them.
PASSING_SHARE, LEAST_THRESHOLD = 0.1, 0.02


def forecast_dense_memory(model: nn.Module, size: Size) -> int:
    """Return the bytes that finding things in one image holds at its peak, beside the loaded model.

    Args:
        model: A detector or a semantic segmentation model of this library, computing in float32.
        size: (height, width) of the image in pixels.

    Raises:
        ValueError: The model refuses images of this size.
        TypeError: It is another model.
    """
    fake = _without_weights(model)
    skip_rowwise(fake)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        fake._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))
        with _Counter(known=[*fake.parameters(), *fake.buffers()]) as counter:
            pixels = torch.empty(1, 3, *size)
            images = pixels * 1  # normalised
            del pixels
            after = _run(fake, images, size, counter)
        peak: int = max(counter.peak, after) + round(HEAP_HOLES * counter.largest_on_heap)
    return round(MARGIN * (peak + WORKSPACE_BYTES))


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


def _run(model: nn.Module, images: Tensor, size: Size, counter: StorageCounter) -> int:
    """Run a model as far as sizes are known, and return the bytes that are held at most from there on."""
    if isinstance(model, SemanticFPN):
        logits = model.logits(images)
        del images
        logits.argmax(dim=1)
        return counter.live
    if isinstance(model, RetinaNet):
        (levels,) = model._predict(images, (size,))
        largest = max(logits.numel() for logits, _, _ in levels)
        passing = PASSING_SHARE if model.config.score_threshold >= LEAST_THRESHOLD else 1.0
        return counter.live + round((SCORE_BYTES + passing * PASSING_BYTES) * largest)
    if isinstance(model, MaskRCNN):
        maps, levels = model.backbone(images, (size,))
        (candidates,) = model.rpn(maps, levels)
        model.rpn.box_coder.decode_single(candidates.offsets, candidates.anchors)
        del candidates
        return counter.live + _bytes_of_regions(model)
    raise TypeError(f"model: {type(model).__name__} is no detector or semantic segmentation model of this library")


def _bytes_of_regions(model: MaskRCNN) -> int:
    """Return what Mask R-CNN's second step takes, which does not grow with the image."""
    config = model.config
    # of each region: two pooled squares, as one is a copy with more filled in, and what is filled in
    boxes = config.proposals * 3 * config.pyramid_width * config.box_size**2
    widest = max(3 * config.pyramid_width, config.pyramid_width + config.head_width, 2 * config.head_width)
    doubled = 4 * (2 * config.head_width + config.num_classes)
    masks = config.detections * max(widest, config.head_width + doubled) * config.mask_size**2
    return FLOAT * max(boxes, masks)


def _without_weights(model: nn.Module) -> Any:
    """Return a copy of a model whose weights have shapes only."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(model, memo).eval()
