"""How to stream an image through a dense model so that it stays within a number of bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from vision_longformer.fpn.pyramid import FeaturePyramid
from vision_longformer.fpn.streamed.backbone import features_of
from vision_longformer.memory.activations import WORKSPACE_BYTES
from vision_longformer.memory.streaming import TYPICAL, Needs, choose_band_bytes, forecast_streaming
from vision_longformer.padding import Size
from vision_longformer.streaming.layout import Layout

MARGIN = 1.15
LevelBytes = Callable[[int], int]  # what a model's levels hold at most beside the backbone's maps, by `band_bytes`


@dataclass(frozen=True)
class Streaming:
    """How to stream.

    Attributes:
        bytes: Held at most, beside the model and the image.
        band_bytes: What the bands of one block may hold; those of a level by what the model's `LevelBytes` says.
        spilled: Whether the backbone's maps go to a work folder.
        disk: Bytes of files there.
    """

    bytes: int
    band_bytes: int
    spilled: bool
    disk: int = 0


def choose_streaming(pyramid: FeaturePyramid, size: Size, level_bytes: LevelBytes, *, memory: int) -> Streaming | None:
    """Return how to stream an image through a dense model; None if it does not fit.

    Maps stay in memory if bands of some size fit beside them; bands are as large as fit.

    Args:
        pyramid: Of the model; one that `features_of` takes.
        size: (height, width) of the image in pixels.
        level_bytes: Of the model, for such an image.
        memory: Bytes that it may take beside the model and the image.
    """
    for spilled in (False, True):
        forecast = partial(forecast_streamed, pyramid, size, level_bytes, spilled=spilled)
        band_bytes, needs = choose_band_bytes(forecast, memory=memory)
        if needs.memory <= memory:
            return Streaming(needs.memory, band_bytes, spilled, needs.disk)
    return None


def forecast_streamed(
    pyramid: FeaturePyramid, size: Size, level_bytes: LevelBytes, band_bytes: int, *, spilled: bool
) -> Needs:
    """Return what a streamed image takes at its peak, beside the model and the image.

    Args:
        pyramid: See `choose_streaming`.
        size: See there.
        level_bytes: See there.
        band_bytes: What the bands of one block may hold.
        spilled: Whether the backbone's maps go to a work folder.
    """
    features = features_of(pyramid)
    config, itemsize = features.model.config, next(pyramid.parameters()).itemsize
    layout = Layout(config, size, itemsize, band_bytes, num_stages=len(features.model.stages))
    needs = forecast_streaming(layout, TYPICAL, wanted=features.stages, spilled=spilled)
    kept = 0 if spilled else sum(map(layout.map_bytes, features.stages))
    of_levels = kept + level_bytes(band_bytes) + WORKSPACE_BYTES
    return replace(needs, memory=round(MARGIN * max(needs.memory, of_levels)))
