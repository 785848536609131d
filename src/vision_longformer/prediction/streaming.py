"""Which images go through a dense model band by band, and how."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from vision_longformer.detection import RetinaNet
from vision_longformer.detection.streamed.levels import Levels
from vision_longformer.fpn.streamed.backbone import features_of
from vision_longformer.fpn.streamed.memory import Streaming, choose_streaming
from vision_longformer.padding import Size
from vision_longformer.segmentation import SemanticFPN
from vision_longformer.segmentation.streamed.bands import HeadBands
from vision_longformer.tiling.choosing import Tiling


def _of_retinanet(model: RetinaNet, size: Size, band_bytes: int) -> int:
    return Levels(model, size, band_bytes=band_bytes, band_rows=None).bytes


def _of_semantic(model: SemanticFPN, size: Size, band_bytes: int) -> int:
    return HeadBands(model, size, band_bytes=band_bytes, band_rows=None).bytes


# What the levels of a model hold at most beside the backbone's maps.
LEVEL_BYTES: dict[type[nn.Module], Callable[[Any, Size, int], int]] = {
    RetinaNet: _of_retinanet,
    SemanticFPN: _of_semantic,
}


def streaming_strategy(model: nn.Module, size: Size, tiling: Tiling) -> Streaming | None:
    """Return how to stream an image; None where it is looked at whole, or must be cut into tiles.

    Args:
        model: A detector or a semantic segmentation model.
        size: (height, width) of the image in pixels.
        tiling: What would be done else. Tiles that were asked for are not replaced.
    """
    if tiling.asked_for or not streamable(model) or tiling.fits_whole(size):
        return None
    pyramid: Any = model.backbone
    of_levels = partial(LEVEL_BYTES[type(model)], model, size)
    return choose_streaming(pyramid, size, of_levels, memory=tiling.memory)


def streamable(model: nn.Module) -> bool:
    """Return whether a dense model can be streamed."""
    if type(model) not in LEVEL_BYTES:
        return False
    pyramid: Any = model.backbone
    try:
        features_of(pyramid)
    except ValueError:
        return False
    return True
