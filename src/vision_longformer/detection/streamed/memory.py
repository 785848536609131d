"""How to stream an image through a detector so that it stays within a number of bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from vision_longformer.config import ModelConfig, Windowed
from vision_longformer.detection.retinanet import RetinaNet
from vision_longformer.detection.streamed.levels import Levels
from vision_longformer.fpn.features import LongformerFeatures
from vision_longformer.fpn.pyramid import FeaturePyramid
from vision_longformer.memory.activations import WORKSPACE_BYTES
from vision_longformer.padding import Size, size_at
from vision_longformer.streaming.bands import BAND_BYTES, choose_band_rows

MARGIN = 1.15
SMALLEST_BAND_BYTES = 2**20
# Of a row of tokens in a band: what comes in, its projections, what attention gives, what goes out; and of its halo.
_OF_BAND, _OF_HALO = 6, 4


@dataclass(frozen=True)
class StreamedDetection:
    """How to stream.

    Attributes:
        bytes: Held at most, beside the model and the image.
        band_bytes: See `detect_streamed`.
        spilled: Whether the backbone's maps go to a work folder.
    """

    bytes: int
    band_bytes: int
    spilled: bool


def choose_streaming(model: RetinaNet, size: Size, *, memory: int) -> StreamedDetection | None:
    """Return how to stream an image through a detector; None if it does not fit.

    Maps stay in memory if bands of some size fit beside them; bands are as large as fit.

    Args:
        model: One that `streamable` says can be.
        size: (height, width) of the image in pixels.
        memory: Bytes that it may take beside the model and the image.
    """
    for spilled in (False, True):
        band_bytes = BAND_BYTES
        while band_bytes >= SMALLEST_BAND_BYTES:
            needed = forecast_streamed_memory(model, size, band_bytes=band_bytes, spilled=spilled)
            if needed <= memory:
                return StreamedDetection(needed, band_bytes, spilled)
            band_bytes //= 2
    return None


def forecast_streamed_memory(model: RetinaNet, size: Size, *, band_bytes: int, spilled: bool) -> int:
    """Return the bytes that `detect_streamed` holds at its peak, beside the model and the image.

    Args:
        model: One that `streamable` says can be.
        size: (height, width) of the image in pixels.
        band_bytes: What the bands of one block, or of one level, may hold.
        spilled: Whether the backbone's maps go to a work folder.
    """
    features = cast(LongformerFeatures, cast(FeaturePyramid, model.backbone).features)
    config, itemsize = features.model.config, next(model.parameters()).itemsize
    maps = [_row_bytes(config, stage, size, itemsize) * height for stage, height in enumerate(_heights(config, size))]
    # Where a stage ends, the next one begins in the same pass: bands of both are held, and both maps may be.
    bands = sum(_band_bytes(config, stage, size, itemsize, band_bytes) for stage in range(len(maps)))
    kept = sum(maps[stage] for stage in features.stages)
    of_backbone = bands + (0 if spilled else sum(maps))
    levels = Levels(model, size, band_bytes=band_bytes, band_rows=None)
    of_levels = levels.bytes + (0 if spilled else kept)
    return round(MARGIN * (max(of_backbone, of_levels) + WORKSPACE_BYTES))


def _heights(config: ModelConfig, size: Size) -> list[int]:
    return [size_at(size, stride)[0] for stride in config.strides]


def _row_bytes(config: ModelConfig, stage: int, size: Size, itemsize: int) -> int:
    return size_at(size, config.strides[stage])[1] * config.stages[stage].width * itemsize


def _band_bytes(config: ModelConfig, stage: int, size: Size, itemsize: int, band_bytes: int) -> int:
    """Return what the bands of a block of a stage hold."""
    attention = config.stages[stage].attention
    step = attention.window_size if isinstance(attention, Windowed) else 1
    height, row_bytes = _heights(config, size)[stage], _row_bytes(config, stage, size, itemsize)
    rows = step * choose_band_rows(height, row_bytes, step=step, halo=step, band_bytes=band_bytes)
    return (min(rows, height) * _OF_BAND + 2 * step * _OF_HALO) * row_bytes
