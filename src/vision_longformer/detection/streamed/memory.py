"""How to stream an image through a detector so that it stays within a number of bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from vision_longformer.detection.retinanet import RetinaNet
from vision_longformer.detection.streamed.levels import Levels
from vision_longformer.fpn.features import LongformerFeatures
from vision_longformer.fpn.pyramid import FeaturePyramid
from vision_longformer.memory.activations import WORKSPACE_BYTES
from vision_longformer.memory.streaming import TYPICAL, Needs, choose_band_bytes, forecast_streaming
from vision_longformer.padding import Size
from vision_longformer.streaming.layout import Layout

MARGIN = 1.15


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
        forecast = partial(forecast_streamed_detection, model, size, spilled=spilled)
        band_bytes, needs = choose_band_bytes(forecast, memory=memory)
        if needs.memory <= memory:
            return StreamedDetection(needs.memory, band_bytes, spilled)
    return None


def forecast_streamed_detection(model: RetinaNet, size: Size, band_bytes: int, *, spilled: bool) -> Needs:
    """Return what `detect_streamed` takes at its peak, beside the model and the image.

    Args:
        model: One that `streamable` says can be.
        size: (height, width) of the image in pixels.
        band_bytes: What the bands of one block, or of one level, may hold.
        spilled: Whether the backbone's maps go to a work folder.
    """
    features = cast(LongformerFeatures, cast(FeaturePyramid, model.backbone).features)
    config, itemsize = features.model.config, next(model.parameters()).itemsize
    layout = Layout(config, size, itemsize, band_bytes, num_stages=len(features.model.stages))
    needs = forecast_streaming(layout, TYPICAL, wanted=features.stages, spilled=spilled)
    kept = 0 if spilled else sum(map(layout.map_bytes, features.stages))
    of_levels = kept + Levels(model, size, band_bytes=band_bytes, band_rows=None).bytes + WORKSPACE_BYTES
    return replace(needs, memory=round(MARGIN * max(needs.memory, of_levels)))
